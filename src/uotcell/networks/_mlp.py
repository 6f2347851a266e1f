"""Residual network: a map of cells that starts at the identity."""

from __future__ import annotations

import jax
from flax import nnx

MLP_ACTIVATIONS = {"gelu": jax.nn.gelu, "silu": jax.nn.silu, "relu": jax.nn.relu, "tanh": jax.nn.tanh}


class ResidualMLP(nnx.Module):
    """Map ``x + W_K σ(… σ(W_1 x + u_1) …) + u_K`` whose last layer starts at zero.

    Parameters
    ----------
    dim
        Dimension of cells and of their images.
    hidden
        Widths of the layers in between.
    activation
        ``"gelu"``, ``"silu"``, ``"relu"`` or ``"tanh"``.
    rngs
        Random streams for the initial weights.
    """

    def __init__(self, dim: int, hidden: tuple[int, ...], *, activation: str, rngs: nnx.Rngs):
        self.activation = activation
        widths = (dim, *hidden)
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, rngs=rngs) for fan_in, fan_out in zip(widths, hidden, strict=False)
        )
        self.out = nnx.Linear(widths[-1], dim, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Image of every row of ``x``: ``(..., dim)`` to ``(..., dim)``."""
        z = x
        for layer in self.layers:
            z = MLP_ACTIVATIONS[self.activation](layer(z))
        return x + self.out(z)
