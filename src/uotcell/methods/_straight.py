"""Straight paths read backwards: from where a cell is at a time to where it left."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from uotcell.methods._base import Method

NEWTON_STEPS, NEWTON_TOLERANCE = 20, 1e-3


@partial(jax.jit, static_argnames=("method",))
def departures(method: Method, params: Any, t: jax.Array, x: jax.Array) -> jax.Array:
    """Source cells ``z`` with ``(1 − t) z + t push(z) = x``, by Newton steps halved until the error falls."""

    def one(position: jax.Array) -> jax.Array:
        def error(z: jax.Array) -> jax.Array:
            return (1 - t) * z + t * method.push(params, z[None])[0] - position

        def step(z: jax.Array, _) -> tuple[jax.Array, None]:
            direction = jnp.linalg.solve(jax.jacfwd(error)(z), error(z))
            candidates = z - 0.5 ** jnp.arange(8)[:, None] * direction
            errors = jax.vmap(lambda c: jnp.sum(error(c) ** 2))(candidates)
            return candidates[jnp.nanargmin(errors)], None

        return jax.lax.scan(step, position, length=NEWTON_STEPS)[0]

    return jax.vmap(one)(x)
