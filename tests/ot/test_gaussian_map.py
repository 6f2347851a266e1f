"""The map between Gaussians against scipy, and the shrinkage of covariances against scikit-learn."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.covariance import oas

from uotcell.ot._gaussian import LEAST_SHRINKAGE, bures_map, shrunk_covariance, symmetric_power


def covariance(points):
    return np.cov(points.T, bias=True)


@pytest.mark.parametrize("n_cells", [8, 30, 200])
def test_shrinkage_is_that_of_scikit_learn(n_cells):
    points = np.random.default_rng(0).normal(size=(n_cells, 10)) * np.linspace(0.5, 2, 10)
    expected, weight = oas(points)
    assert weight > LEAST_SHRINKAGE
    np.testing.assert_allclose(shrunk_covariance(covariance(points), n_cells), expected)


def test_many_cells_leave_the_least_shrinkage():
    cov = np.diag([1.0, 4.0])
    np.testing.assert_allclose(shrunk_covariance(cov, 1e9), 0.99 * cov + 0.025 * np.eye(2))


def test_spheres_and_points_are_left_as_they_are():
    np.testing.assert_allclose(shrunk_covariance(np.eye(3), 50), np.eye(3))
    np.testing.assert_array_equal(shrunk_covariance(np.zeros((3, 3)), 1), np.zeros((3, 3)))


def test_shrinkage_brings_few_cells_closer_to_the_truth():
    rng = np.random.default_rng(1)
    truth = np.diag(1 / (1 + np.arange(50) / 5))
    sample = covariance(rng.normal(size=(60, 50)) @ np.sqrt(truth))
    errors = [np.linalg.norm(estimate - truth) for estimate in (shrunk_covariance(sample, 60), sample)]
    assert errors[0] < 0.7 * errors[1]


def test_bures_map():
    roots = np.random.default_rng(0).normal(size=(2, 4, 4))
    source, target = (root @ root.T / 4 + 0.2 * np.eye(4) for root in roots)
    linear = bures_map(source, target)
    root = np.real(sqrtm(source))
    inverse_root = np.linalg.inv(root)
    np.testing.assert_allclose(linear, inverse_root @ np.real(sqrtm(root @ target @ root)) @ inverse_root, atol=1e-8)
    np.testing.assert_allclose(linear @ source @ linear, target, atol=1e-8)
    np.testing.assert_allclose(symmetric_power(linear, -1.0), bures_map(target, source), atol=1e-8)
