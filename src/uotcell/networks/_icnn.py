"""Input-convex network: a scalar potential that is convex in its input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

ACTIVATIONS = {"softplus": jax.nn.softplus, "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.2), "elu": jax.nn.elu}


class InputConvexNetwork(nnx.Module):
    r"""Convex potential ``½‖L(x − c)‖² + b·x + w·z_K`` with ``z_k = σ(W_k z_{k−1} + U_k x + u_k)``, ``W_k, w ≥ 0``.

    The input-convex network of Amos et al. (2017), on top of a quadratic whose gradient alone is any map between
    Gaussians (Korotin et al. 2021), so that training starts from that map and the layers learn what is left.

    Parameters
    ----------
    dim
        Input dimension.
    hidden
        Widths of the layers.
    activation
        ``"softplus"``, ``"leaky_relu"`` (slope 0.2) or ``"elu"``: convex and increasing.
    positive
        ``"softplus"`` makes the weights between layers positive by construction; ``"penalty"`` uses them as they
        are: whoever trains the network keeps them from becoming negative.
    rngs
        Random streams for the initial weights.
    """

    def __init__(self, dim: int, hidden: tuple[int, ...], *, activation: str, positive: str, rngs: nnx.Rngs):
        self.activation, self.positive = activation, positive
        # The average over a layer's inputs keeps activations of order one at any width.
        means = [1.0 / width for width in hidden]
        spreads = [jax.random.uniform(rngs.params(), (w,), minval=0.5, maxval=1.5) for w in hidden[-1:]]
        self.between = nnx.List(
            nnx.Param(self._raw(mean * jax.random.uniform(rngs.params(), (fan_in, fan_out), minval=0.0, maxval=2.0)))
            for mean, fan_in, fan_out in zip(means, hidden, hidden[1:], strict=False)
        )
        self.skip = nnx.List(
            nnx.Param(jax.random.normal(rngs.params(), (dim, width)) / jnp.sqrt(dim)) for width in hidden
        )
        self.bias = nnx.List(nnx.Param(jnp.zeros(width)) for width in hidden)
        self.out = nnx.Param(self._raw(0.1 * means[-1] * spreads[0]))
        self.factor = nnx.Param(jnp.eye(dim))
        self.center = nnx.Param(jnp.zeros(dim))
        self.linear = nnx.Param(jnp.zeros(dim))

    def _raw(self, weights: jax.Array) -> jax.Array:
        """Parameters that stand for the given positive weights."""
        return jnp.log(jnp.expm1(weights + 1e-6)) if self.positive == "softplus" else weights

    def _weights(self, raw: jax.Array) -> jax.Array:
        return jax.nn.softplus(raw) if self.positive == "softplus" else raw

    def __call__(self, x: jax.Array) -> jax.Array:
        """Potential of every row of ``x``: ``(..., dim)`` to ``(...)``."""
        activate = ACTIVATIONS[self.activation]
        z = activate(x @ self.skip[0][...] + self.bias[0][...])
        for between, skip, bias in zip(self.between, self.skip[1:], self.bias[1:], strict=True):
            z = activate(z @ self._weights(between[...]) + x @ skip[...] + bias[...])
        quadratic = 0.5 * jnp.sum(((x - self.center[...]) @ self.factor[...]) ** 2, axis=-1)
        return quadratic + x @ self.linear[...] + z @ self._weights(self.out[...])
