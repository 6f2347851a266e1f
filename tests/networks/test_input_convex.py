"""The input-convex network: convex, shaped as asked, and what its gradient is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from uotcell.networks import ACTIVATIONS, InputConvexNetwork


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("positive", ["softplus", "penalty"])
def test_convex_along_segments(activation, positive):
    network = InputConvexNetwork(5, (16, 8), activation=activation, positive=positive, rngs=nnx.Rngs(params=3))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500, 5)) * 3
    t = rng.uniform(size=(500, 1))
    chord = t[:, 0] * network(x) + (1 - t[:, 0]) * network(y)
    assert np.all(np.asarray(network(t * x + (1 - t) * y)) <= np.asarray(chord) + 1e-3)


def test_positive_by_construction_whatever_the_parameters():
    network = InputConvexNetwork(3, (8, 8, 8), activation="elu", positive="softplus", rngs=nnx.Rngs(params=0))
    structure, params = nnx.split(network)
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + noise.normal(size=leaf.shape).astype(np.float32) * 3, params)
    hessian = jax.vmap(jax.hessian(lambda x: nnx.merge(structure, params)(x)))
    eigenvalues = np.linalg.eigvalsh(hessian(jnp.asarray(noise.normal(size=(50, 3)), jnp.float32)))
    assert eigenvalues.min() > -1e-3


def test_shapes():
    network = InputConvexNetwork(4, (8,), activation="softplus", positive="softplus", rngs=nnx.Rngs(params=0))
    assert network(jnp.ones(4)).shape == ()
    assert network(jnp.ones((2, 3, 4))).shape == (2, 3)
