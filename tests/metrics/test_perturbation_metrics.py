import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score, root_mean_squared_error

from uotcell.metrics import correlation_error, drug_signature_error, mean_r2, mean_rmse, variance_error

rng = np.random.default_rng(0)
MIXING = rng.normal(size=(6, 6))
X, Y = rng.normal(size=(40, 6)) @ MIXING, 0.7 * rng.normal(size=(25, 6)) @ MIXING.T + 2 * rng.normal(size=6)
A, B = rng.uniform(0.5, 1.5, size=40), rng.uniform(0.5, 1.5, size=25)
MEAN_X, MEAN_Y = np.average(X, axis=0, weights=A), np.average(Y, axis=0, weights=B)


def test_drug_signature_error_has_no_control_in_it():
    for control in rng.normal(size=(3, 50, 6)):
        signatures = X.mean(axis=0) - control.mean(axis=0), Y.mean(axis=0) - control.mean(axis=0)
        expected = np.linalg.norm(signatures[0] - signatures[1])
        assert drug_signature_error(X, Y) == pytest.approx(expected)
    assert drug_signature_error(X, Y, a=A, b=B) == pytest.approx(np.linalg.norm(MEAN_X - MEAN_Y))


def test_rmse_of_means():
    assert mean_rmse(X, Y, a=A, b=B) == pytest.approx(root_mean_squared_error(MEAN_Y, MEAN_X))
    assert mean_rmse(X, Y) == pytest.approx(drug_signature_error(X, Y) / np.sqrt(6))


def test_r2_of_means():
    assert mean_r2(X, Y, a=A, b=B) == pytest.approx(r2_score(MEAN_Y, MEAN_X))
    assert mean_r2(Y, X, a=B, b=A) == pytest.approx(r2_score(MEAN_X, MEAN_Y))
    # A population at the average of the observed means explains nothing of them.
    assert mean_r2(np.full((3, 6), Y.mean()), Y) == pytest.approx(0.0)


def test_r2_of_means_is_not_squared_correlation():
    wrong = 3 * Y + 1
    assert stats.pearsonr(wrong.mean(axis=0), Y.mean(axis=0)).statistic ** 2 == pytest.approx(1.0)
    assert mean_r2(wrong, Y) < -1


@pytest.mark.parametrize("observed", [[[1.0], [2.0]], [[1.0, 3.0], [3.0, 1.0]]])
def test_r2_of_means_without_spread(observed):
    assert np.isnan(mean_r2(np.zeros_like(observed), observed))


def weighted_variance(points, mass):
    return np.diag(np.cov(points, rowvar=False, aweights=mass, ddof=0))


def test_variance_error():
    expected = np.linalg.norm(X.var(axis=0) - Y.var(axis=0)) / np.linalg.norm(Y.var(axis=0))
    assert variance_error(X, Y) == pytest.approx(expected)
    observed = weighted_variance(Y, B)
    expected = np.linalg.norm(weighted_variance(X, A) - observed) / np.linalg.norm(observed)
    assert variance_error(X, Y, a=A, b=B) == pytest.approx(expected)


@pytest.mark.parametrize(("factor", "expected"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.0), (2.0, 3.0)])
def test_variance_error_of_scaled_cells(factor, expected):
    assert variance_error(factor * Y, Y, a=B, b=B) == pytest.approx(expected, abs=1e-12)


def test_variance_error_of_constants():
    # 0.1 has no exact binary form: a weighted mean of copies of it is off by rounding.
    constant, mass = np.full((7, 6), 0.1), np.arange(1, 8)
    assert variance_error(constant, Y, a=mass) == pytest.approx(1.0, rel=1e-12)
    assert np.isnan(variance_error(X, constant, b=mass))
    assert np.isnan(variance_error(X, Y[:1]))


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def weighted_correlation(points, mass):
    covariance = np.cov(points, rowvar=False, aweights=mass)
    return covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))


def test_correlation_error():
    difference = off_diagonal(np.corrcoef(X, rowvar=False) - np.corrcoef(Y, rowvar=False))
    assert correlation_error(X, Y) == pytest.approx(np.sqrt(np.mean(difference**2)))
    difference = off_diagonal(weighted_correlation(X, A) - weighted_correlation(Y, B))
    assert correlation_error(X, Y, a=A, b=B) == pytest.approx(np.sqrt(np.mean(difference**2)))


def test_correlation_error_does_not_see_location_and_scale():
    scales = rng.uniform(0.1, 10, size=6)
    assert correlation_error(Y * scales + rng.normal(size=6), Y) == pytest.approx(0.0, abs=1e-12)
    assert correlation_error(X * scales, Y) == pytest.approx(correlation_error(X, Y))


def test_correlation_error_leaves_constants_out():
    x, y = X.copy(), Y.copy()
    x[:, 1], y[:, 4] = 0.1, 0.3
    kept = [0, 2, 3, 5]
    assert correlation_error(x, y, a=A, b=B) == pytest.approx(correlation_error(X[:, kept], Y[:, kept], a=A, b=B))
    y[:, [0, 2, 3]] = 0.7
    assert np.isnan(correlation_error(x, y))
    assert np.isnan(correlation_error(X[:, :1], Y[:, :1]))
    assert np.isnan(correlation_error(X[:1], Y))
