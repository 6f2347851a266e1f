"""Baselines against closed forms."""

import numpy as np
import pytest

from uotcell.benchmark._baselines import LINEAR_MAPS, diagonal_affine, gaussian, identity, mean_shift
from uotcell.ot._gaussian import shrunk_covariance

RNG = np.random.default_rng(0)
DIM = 4


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, DIM, DIM))
    return rng.normal(size=(400, DIM)) @ mixing[0] + 3, rng.normal(size=(300, DIM)) @ mixing[1] - 1


def covariance(x):
    return np.cov(x.T, bias=True)


def test_identity_and_mean_shift(cells):
    x, y = cells
    np.testing.assert_array_equal(identity(x, y)(x), x)
    pushed = mean_shift(x, y)(x)
    np.testing.assert_allclose(pushed.mean(axis=0), y.mean(axis=0))
    np.testing.assert_allclose(pushed - x, np.broadcast_to(pushed[0] - x[0], x.shape))


def test_diagonal_affine_matches_mean_and_spread(cells):
    x, y = cells
    x = np.c_[x, np.full(len(x), 2.0)]
    y = np.c_[y, np.arange(len(y))]
    pushed = diagonal_affine(x, y)(x)
    np.testing.assert_allclose(pushed.mean(axis=0), y.mean(axis=0))
    np.testing.assert_allclose(pushed[:, :DIM].std(axis=0), y[:, :DIM].std(axis=0))
    np.testing.assert_allclose(pushed[:, DIM], y[:, DIM].mean())  # a feature without spread is only shifted


def test_gaussian_matches_mean_and_shrunk_covariance(cells):
    x, y = cells
    push = gaussian(x, y)
    np.testing.assert_allclose(push(x).mean(axis=0), y.mean(axis=0))
    linear = push(x.mean(axis=0) + np.eye(DIM)) - y.mean(axis=0)
    np.testing.assert_allclose(linear, linear.T, atol=1e-8)  # the gradient of a quadratic function ...
    assert np.linalg.eigvalsh(linear).min() > 0  # ... that is convex: the optimal map
    shrunk = (shrunk_covariance(covariance(side), len(side)) for side in cells)
    np.testing.assert_allclose(linear @ next(shrunk) @ linear, next(shrunk), atol=1e-8)


def test_gaussian_of_commuting_covariances_scales_each_axis():
    x, y = RNG.normal(size=(2, 20_000, 2)) * [[[1.0, 2.0]], [[3.0, 1.0]]]
    linear = gaussian(x, y)(x.mean(axis=0) + np.eye(2)) - y.mean(axis=0)
    np.testing.assert_allclose(linear, np.diag([3.0, 0.5]), atol=0.05)


def test_gaussian_of_fewer_cells_than_dimensions_is_bounded():
    x, y = RNG.normal(size=(2, 10, 30))
    fresh = RNG.normal(size=(100, 30))
    assert np.abs(gaussian(x, y)(fresh)).max() < 100


@pytest.mark.parametrize("name", LINEAR_MAPS)
def test_one_dimension(name):
    x, y = RNG.normal(size=(2, 50, 1))
    assert LINEAR_MAPS[name](x, y)(x[:7]).shape == (7, 1)
