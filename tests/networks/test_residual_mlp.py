"""The residual network."""

import jax
import numpy as np
from flax import nnx

from uotcell.networks import ResidualMLP


def test_starts_at_the_identity_and_can_leave_it():
    network = ResidualMLP(4, (16, 8), activation="gelu", rngs=nnx.Rngs(params=0))
    x = jax.random.normal(jax.random.key(0), (10, 4))
    np.testing.assert_array_equal(network(x), x)
    gradient = nnx.grad(lambda net: ((net(x) - x - 1) ** 2).sum())(network)
    assert float(np.abs(gradient["out"]["kernel"][...]).max()) > 0


def test_rows_are_mapped_one_by_one():
    network = ResidualMLP(3, (8,), activation="tanh", rngs=nnx.Rngs(params=0))
    network.out.kernel[...] = jax.random.normal(jax.random.key(1), (8, 3))
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    np.testing.assert_allclose(network(x)[1, 2], network(x[1, 2]), atol=1e-6)
