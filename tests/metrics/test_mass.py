import numpy as np
import ot
import pandas as pd
import pytest

from uotcell.metrics import mass_by_cell_type, transported_mass

rng = np.random.default_rng(0)
WEIGHTS, LABELS = rng.uniform(size=50), rng.choice(["c", "a", "b"], size=50)


@pytest.mark.parametrize("reach", [0.3, 3.0])
def test_transported_mass_of_a_plan(reach):
    x, y = rng.normal(size=(40, 2)), rng.normal(loc=2.0, size=(30, 2))
    a, b = rng.uniform(size=40), np.full(30, 1 / 30)
    plan = ot.unbalanced.sinkhorn_unbalanced(a, b, ot.dist(x, y), 0.5, reach)
    assert transported_mass(plan.sum(axis=0)) == pytest.approx(plan.sum())
    assert transported_mass(plan.sum(axis=1), prior=a) == pytest.approx(plan.sum() / a.sum())


@pytest.mark.parametrize(
    ("weights", "prior", "expected"),
    [
        ([0.25] * 4, None, 1.0),
        ([0.1, 0.2], None, 0.3),
        ([3.0, 1.0], [1.0, 1.0], 2.0),
        ([1, 2], [4, 2], 0.5),
        ([1.0, 0.0], [1.0, 0.0], 1.0),
    ],
)
def test_transported_mass(weights, prior, expected):
    assert transported_mass(weights, prior=prior) == pytest.approx(expected)


def test_mass_by_cell_type_agrees_with_pandas():
    grouped = pd.Series(WEIGHTS).groupby(LABELS).sum() / WEIGHTS.sum()
    for labels in (LABELS, LABELS.tolist(), pd.Series(LABELS), pd.Categorical(LABELS)):
        shares = mass_by_cell_type(WEIGHTS, labels)
        assert shares == pytest.approx(grouped.to_dict())
        assert list(shares) == ["a", "b", "c"]
        assert sum(shares.values()) == pytest.approx(1.0)


def test_weights_count_cells():
    counts = np.arange(50) % 4
    repeated = mass_by_cell_type(np.ones(counts.sum()), np.repeat(LABELS, counts))
    assert mass_by_cell_type(counts, LABELS) == pytest.approx(repeated)
    assert mass_by_cell_type(3.0 * counts, LABELS) == pytest.approx(repeated)


def test_labels_without_mass_and_numbered_labels():
    assert mass_by_cell_type([0.0, 2.0], [10, 9]) == {"10": 0.0, "9": 1.0}


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        (mass_by_cell_type, (WEIGHTS, LABELS[:4]), r"`labels` to have shape \(50,\), .* found \(4,\)"),
        (mass_by_cell_type, (-WEIGHTS, LABELS), "`weights` to be finite, non-negative"),
        (mass_by_cell_type, ([], []), r"`weights` to have shape \(n,\), .* found \(0,\)"),
        (mass_by_cell_type, (WEIGHTS[:, None], LABELS), r"`weights` to have shape \(n,\), .* found \(50, 1\)"),
        (transported_mass, ([np.nan, 1.0],), "`weights` to be finite"),
        (transported_mass, ([0.0, 0.0],), "`weights` to be .* not all zero"),
        (transported_mass, ([],), r"`weights` to have shape \(n,\), .* found \(0,\)"),
    ],
)
def test_bad_input(measure, arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(*arguments)


def test_bad_prior():
    with pytest.raises(ValueError, match=r"`prior` to have shape \(2,\), .* found \(3,\)"):
        transported_mass([1.0, 1.0], prior=[1.0, 1.0, 1.0])
