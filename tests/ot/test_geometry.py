"""Tiles, reductions and costs against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from uotcell.ot._geometry import PointGeometry, kernel_average, log_kernel_sum, map_tiles, pairwise_cost, resolve_cost


@pytest.mark.parametrize("tile", [None, 1, 4, 7, 100])
def test_reductions_equal_numpy_in_tiles_of_any_size(tile):
    rng = np.random.default_rng(0)
    x, y, h = (rng.normal(size=s).astype(np.float32) for s in ((11, 3), (8, 3), (8,)))
    logits = h - ((x[:, None] - y) ** 2).sum(-1) / (2.0 * 0.5)
    arguments = (jnp.asarray(x), jnp.asarray(y), jnp.asarray(h), resolve_cost("sqeuclidean"), 2.0, 0.5)
    np.testing.assert_allclose(log_kernel_sum(*arguments, tile=tile), logsumexp(logits, axis=1), atol=2e-5)
    np.testing.assert_allclose(kernel_average(*arguments, tile=tile), softmax(logits, axis=1) @ y, atol=2e-5)


def test_map_tiles_keeps_order_and_never_exceeds_a_tile():
    sizes = []

    def double(rows):
        sizes.append(len(rows))
        return 2 * rows

    out = map_tiles(double, jnp.arange(10.0), 4)
    np.testing.assert_array_equal(out, 2 * np.arange(10.0))
    assert max(sizes) == 4


def test_squared_distance_is_never_negative():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 30)) * 100, jnp.float32)
    assert pairwise_cost(resolve_cost("sqeuclidean"), x, x).min() >= 0


def test_geometry_serves_log_space_only():
    x = jnp.ones((3, 2))
    geometry = PointGeometry(x, x, jnp.ones(3), jnp.ones(3), resolve_cost("sqeuclidean"), 1.0, 0.1)
    assert geometry.shape == (3, 3)
    with pytest.raises(ValueError, match="log-space"):
        geometry.apply_lse_kernel(jnp.zeros(3), jnp.zeros(3), 0.1, vec=jnp.ones(3))
