import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from uotcell.metrics import classifier_auc
from uotcell.metrics._classifier import _held_out_auc

D = 10


def normal(n, seed):
    return np.random.default_rng(seed).normal(size=(n, D))


def mean_auc(change, n=150):
    return np.mean([classifier_auc(change(normal(n, seed)), normal(n, 100 + seed)) for seed in range(3)])


def test_one_population():
    assert mean_auc(lambda x: x) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("change", "lowest"),
    [(lambda x: x + 0.3, 0.65), (lambda x: 0.7 * x, 0.7), (lambda x: x * np.r_[3.0, np.ones(D - 1)], 0.6)],
    ids=["mean", "spread", "spread of one feature"],
)
def test_what_it_sees(change, lowest):
    assert mean_auc(change) > lowest


def test_told_apart():
    assert classifier_auc(normal(50, 0) + 5, normal(30, 1)) == pytest.approx(1.0)
    assert classifier_auc(1e-3 * normal(50, 0), normal(30, 1)) > 0.99


def test_follows_the_size_of_the_difference():
    values = [mean_auc(lambda x, shift=shift: x + shift, n=60) for shift in (0.0, 0.4, 1.0)]
    assert (np.diff(values) > 0).all()


def test_agrees_with_sklearn():
    cells = np.concatenate([normal(60, 0), normal(40, 1) + 0.3])
    masses = np.zeros((2, 100))
    masses[0, :60], masses[1, 60:] = np.random.default_rng(2).uniform(0.2, 2.0, size=60), 1.0
    masses[0, 70] = 0.4  # a position of both sides
    tested = np.random.default_rng(3).uniform(size=100) < 0.4
    rows = np.concatenate([cells, cells[[70]]])
    side = np.r_[np.zeros(60), np.ones(40), 0]
    mass = np.r_[masses[0, :60], masses[1, 60:], 0.4]
    held_out = np.r_[tested, tested[70]]
    total = np.where(side == 1, mass[~held_out & (side == 1)].sum(), mass[~held_out & (side == 0)].sum())
    model = LogisticRegression().fit(rows[~held_out], side[~held_out], (mass / total)[~held_out])
    expected = roc_auc_score(side[held_out], model.decision_function(rows[held_out]), sample_weight=mass[held_out])
    assert _held_out_auc(cells, masses, tested) == pytest.approx(expected, abs=1e-6)


def test_copies_are_not_tested_on_what_was_trained():
    # Drawing again from the predicted cells, as one does by their masses, adds nothing that tells them apart.
    x, y = normal(60, 0), normal(60, 1)
    drawn = x[np.random.default_rng(2).choice(60, size=600)]
    counts = [(drawn == row).all(axis=1).sum() for row in x]
    assert classifier_auc(drawn, y) == pytest.approx(classifier_auc(x, y, a=counts), abs=1e-9)
    assert abs(np.mean([classifier_auc(drawn, y, rng=seed) for seed in range(3)]) - 0.5) < 0.1


def test_cells_shared_by_both_sides():
    shared = normal(40, 0)
    x, y = np.concatenate([shared, normal(20, 1)]), np.concatenate([shared, normal(20, 2)])
    assert np.mean([classifier_auc(x, y, rng=seed) for seed in range(4)]) == pytest.approx(0.5, abs=0.07)


def test_same_seed_same_value():
    x, y = normal(30, 0), normal(20, 1)
    assert classifier_auc(x, y, rng=3) == classifier_auc(x, y, rng=jax.random.key(3))
    assert len({classifier_auc(x, y, rng=seed) for seed in range(3)}) > 1


def test_units_and_constants_do_not_count():
    x, y = normal(30, 0), normal(20, 1)
    expected = classifier_auc(x, y)
    assert classifier_auc(1e6 * x, 1e6 * y) == pytest.approx(expected, abs=1e-9)
    constant = [np.concatenate([side, np.full((len(side), 1), 0.1)], axis=1) for side in (x, y)]
    assert classifier_auc(*constant) == pytest.approx(expected, abs=1e-9)


def test_binary_features():
    # Their squares say nothing, and must not be blown up from rounding.
    x, y = np.sign(normal(50, 0)), np.sign(normal(50, 1) + 2)
    assert classifier_auc(x, y) > 0.95


@pytest.mark.parametrize("n", [5, 7, 8])
def test_few_cells(n):
    assert 0 <= classifier_auc(normal(n, 0), normal(40, 1)) <= 1
    assert 0 <= classifier_auc(normal(40, 0), normal(n, 1)) <= 1


def test_fewer_cells_than_folds():
    x, y = normal(20, 0), normal(4, 1)
    assert np.isnan(classifier_auc(x, y))
    assert np.isnan(classifier_auc(np.ones((20, D)), x))
    assert np.isnan(classifier_auc(x, x, a=np.arange(20) < 4))
    assert np.isfinite(classifier_auc(x, y, n_splits=4))


@pytest.mark.parametrize("n_splits", [0, 1, 2.5, "5"])
def test_bad_folds(n_splits):
    with pytest.raises(ValueError, match=r"Expected `n_splits` to be an integer of at least 2, found"):
        classifier_auc(normal(20, 0), normal(20, 1), n_splits=n_splits)
