"""Velocity network: where a point moves at a time, perhaps depending on something else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from uotcell.networks._mlp import MLP_ACTIVATIONS

# Sines and cosines of this many whole turns of the unit interval, beside the time itself.
TIME_FREQUENCIES = 4


class VelocityNetwork(nnx.Module):
    """Velocity of points at times in [0, 1]: a residual network whose last layer starts at zero.

    The time enters through sines and cosines beside the point. A condition enters by feature-wise modulation (FiLM,
    Perez et al. 2018): a network of its own scales and shifts every layer's features before they are activated.

    Parameters
    ----------
    dim
        Dimension of points and velocities.
    hidden
        Widths of the layers; where two in a row are equal, the second adds to the first.
    activation
        ``"gelu"``, ``"silu"``, ``"relu"`` or ``"tanh"``.
    condition_dim
        Dimension of the condition; zero for none.
    rngs
        Random streams for the initial weights.
    """

    def __init__(self, dim: int, hidden: tuple[int, ...], *, activation: str, condition_dim: int = 0, rngs: nnx.Rngs):
        self.activation = activation
        widths = (dim + 1 + 2 * TIME_FREQUENCIES, *hidden)
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, rngs=rngs) for fan_in, fan_out in zip(widths, hidden, strict=False)
        )
        self.out = nnx.Linear(widths[-1], dim, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.is_conditional = condition_dim > 0
        if self.is_conditional:
            self.embed = nnx.List(nnx.Linear(fan_in, hidden[0], rngs=rngs) for fan_in in (condition_dim, hidden[0]))
            self.films = nnx.List(nnx.Linear(hidden[0], 2 * width, rngs=rngs) for width in hidden)

    def __call__(self, x: jax.Array, t: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        """Velocity of every row of ``x`` ``(n, dim)`` at times ``t``, one or ``(n,)``, given ``(n, condition_dim)``."""
        if self.is_conditional != (condition is not None):
            found, expected = ("none", "a") if self.is_conditional else ("one", "no")
            raise ValueError(f"Expected {expected} condition, as the network was made, found {found}.")
        activate = MLP_ACTIVATIONS[self.activation]
        t = jnp.broadcast_to(t, x.shape[:-1])[..., None]
        angles = 2 * jnp.pi * t * jnp.arange(1, TIME_FREQUENCIES + 1)
        z = jnp.concatenate([x, t, jnp.sin(angles), jnp.cos(angles)], axis=-1)
        if self.is_conditional:
            for layer in self.embed:
                condition = activate(layer(condition))
        for i, layer in enumerate(self.layers):
            features = layer(z)
            if self.is_conditional:
                scale, shift = jnp.split(self.films[i](condition), 2, axis=-1)
                features = features * (1 + scale) + shift
            features = activate(features)
            z = z + features if z.shape == features.shape else features
        return self.out(z)
