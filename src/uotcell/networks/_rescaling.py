"""Network of positive mass multipliers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


class RescalingNetwork(nnx.Module):
    """Map cells to positive numbers, ``softplus(W_K σ(… W_1 x …))``; one for every cell at first.

    Parameters
    ----------
    dim
        Dimension of cells.
    hidden
        Widths of the layers.
    rngs
        Random streams for the initial weights.
    """

    def __init__(self, dim: int, hidden: tuple[int, ...], *, rngs: nnx.Rngs):
        widths = (dim, *hidden)
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, rngs=rngs) for fan_in, fan_out in zip(widths, hidden, strict=False)
        )
        self.out = nnx.Linear(
            widths[-1],
            1,
            kernel_init=nnx.initializers.zeros,
            bias_init=nnx.initializers.constant(np.log(np.expm1(1.0))),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplier of every row of ``x``: ``(..., dim)`` to ``(...)``."""
        z = x
        for layer in self.layers:
            z = jax.nn.silu(layer(z))
        return jnp.squeeze(jax.nn.softplus(self.out(z)), axis=-1)
