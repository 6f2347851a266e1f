import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import pairwise_distances

from uotcell.metrics import discrimination_rank

rng = np.random.default_rng(0)
OBSERVED = rng.normal(size=(12, 5))
PREDICTED = OBSERVED + rng.normal(scale=1.5, size=(12, 5))
METRICS = ["cityblock", "correlation", "cosine", "euclidean"]


@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_other_libraries(metric):
    distances = pairwise_distances(PREDICTED, OBSERVED, metric=metric)
    ranks = np.diag(stats.rankdata(distances, axis=1))
    np.testing.assert_allclose(discrimination_rank(PREDICTED, OBSERVED, metric=metric), (ranks - 1) / 11)
    assert 0 < ranks.mean() < 12


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_and_worst(metric):
    np.testing.assert_array_equal(discrimination_rank(OBSERVED, OBSERVED, metric=metric), 0)
    line = np.array([[-2.0, 1.0, 1.0], [3.0, 1.0, 0.0]])
    np.testing.assert_array_equal(discrimination_rank(line[::-1], line, metric=metric), 1)


def test_one_prediction_for_all_is_chance():
    same = np.tile(OBSERVED.mean(axis=0), (12, 1))
    ranks = discrimination_rank(same, OBSERVED)
    np.testing.assert_allclose(np.sort(ranks), np.arange(12) / 11)
    assert ranks.mean() == pytest.approx(0.5)


def test_unrelated_predictions_are_chance():
    draws = [discrimination_rank(*np.random.default_rng(seed).normal(size=(2, 30, 5))).mean() for seed in range(40)]
    assert np.mean(draws) == pytest.approx(0.5, abs=4 * np.std(draws) / np.sqrt(40))


def test_ties_share_the_middle_rank():
    observed = np.array([[0.0], [0.0], [0.0], [5.0]])
    np.testing.assert_allclose(discrimination_rank(observed, observed), [1 / 3, 1 / 3, 1 / 3, 0.0])
    np.testing.assert_allclose(discrimination_rank(np.ones((3, 2)), np.zeros((3, 2))), 0.5)


def test_swapped_arguments_rank_predictions():
    # PerturBench: for each observation, the place of its own prediction among all predictions.
    distances = pairwise_distances(PREDICTED, OBSERVED)
    expected = [(distances[:, i] < distances[i, i]).sum() / 11 for i in range(12)]
    np.testing.assert_allclose(discrimination_rank(OBSERVED, PREDICTED), expected)
    assert not np.allclose(discrimination_rank(PREDICTED, OBSERVED), expected)


def test_invariances():
    order, shift = rng.permutation(12), rng.normal(size=5)
    expected = discrimination_rank(PREDICTED, OBSERVED)
    np.testing.assert_array_equal(discrimination_rank(PREDICTED[order], OBSERVED[order]), expected[order])
    np.testing.assert_array_equal(discrimination_rank(PREDICTED + shift, OBSERVED + shift), expected)


@pytest.mark.parametrize(
    ("predicted", "observed", "metric", "message"),
    [
        (PREDICTED[:5], OBSERVED, "euclidean", r"one shape .* found \(5, 5\) and \(12, 5\)\. Average"),
        (PREDICTED[:, :2], OBSERVED, "euclidean", r"one shape .* found \(12, 2\) and \(12, 5\)"),
        (PREDICTED[:1], OBSERVED[:1], "euclidean", r"at least two conditions, found \(1, 5\)"),
        (np.where(PREDICTED > 1, np.nan, PREDICTED), OBSERVED, "euclidean", "`predicted` to be finite"),
        (PREDICTED, OBSERVED[0], "euclidean", r"`observed` .* found shape \(5,\)"),
        (PREDICTED, OBSERVED, "l2", r"`metric` to be one of \['cityblock', .*\], found 'l2'"),
        (PREDICTED, np.zeros((12, 5)), "cosine", r"every cosine distance to be defined, found NaN"),
        (np.ones((12, 5)), OBSERVED, "correlation", r"every correlation distance to be defined, found NaN"),
    ],
)
def test_bad_input(predicted, observed, metric, message):
    with pytest.raises(ValueError, match=message):
        discrimination_rank(predicted, observed, metric=metric)
