"""Where the search of quadratic problems starts: coordinates of distances, rotations of these, and reflections."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from uotcell.ot._starts import COORDINATES, SIGNED_DIMS, _coordinates, _reflections, _rotations


@pytest.mark.parametrize("dim", [1, 3, COORDINATES])
def test_coordinates_have_the_distances_they_come_from(dim):
    points = np.random.default_rng(0).normal(size=(40, dim)) * np.arange(1, dim + 1)
    distances = cdist(points, points, "sqeuclidean")
    found = _coordinates(distances)
    assert found.shape == (40, dim)
    np.testing.assert_allclose(cdist(found, found, "sqeuclidean"), distances, atol=1e-8 * distances.max())
    # Principal: uncorrelated, the widest first.
    covariance = found.T @ found
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-8 * covariance.max())
    assert (np.diff(np.diag(covariance)) < 0).all()


def test_coordinates_are_the_leading_ones():
    points = np.random.default_rng(0).normal(size=(40, 15))
    found = _coordinates(cdist(points, points, "sqeuclidean"))
    assert found.shape == (40, COORDINATES)
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[:COORDINATES]
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), spread, rtol=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8, 63, 64, 70])
@pytest.mark.parametrize(("n_source", "n_target"), [(1, 1), (3, 5), (10, 8)])
def test_as_many_rotations_as_asked_for(n_source, n_target, n):
    found = list(_rotations(n_source, n_target, n, np.random.default_rng(0)))
    k = min(n_source, n_target)
    n_signs = 2 ** min(k, SIGNED_DIMS)
    assert len(found) == n
    for i, rotation in enumerate(found):
        assert rotation.shape == (n_source, n_target)
        # Some leading coordinates are matched, with either sign, or all are rotated.
        singular = np.linalg.svd(rotation, compute_uv=False)
        n_matched = min(k, SIGNED_DIMS, int(np.ceil(np.log2(n + 1)))) if i < n_signs else k
        np.testing.assert_allclose(singular, np.arange(k) < n_matched, atol=1e-12)
        if i < n_signs:
            matched = np.eye(n_source, n_target) * (np.arange(n_target) < n_matched)
            np.testing.assert_array_equal(np.abs(rotation), matched)
    np.testing.assert_array_equal(found[0], np.abs(found[0]))
    assert len({rotation.tobytes() for rotation in found}) == n or k == 1


def test_reflections_turn_one_axis_of_the_closest_rotation():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(30, 3)) * [3, 2, 1]
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    plan = np.eye(30) / 30
    left = np.linalg.svd(source.T @ source @ rotation)[0]
    found = list(_reflections(plan, source, source @ rotation))
    assert len(found) == 3
    for axis, reflected in enumerate(found):
        np.testing.assert_allclose(reflected @ reflected.T, np.eye(3), atol=1e-12)
        # In the axes of the plan it is the rotation but for one sign.
        inner = np.diag(left.T @ reflected @ rotation.T @ left)
        np.testing.assert_allclose(inner, np.where(np.arange(3) == axis, -1, 1), atol=1e-12)
