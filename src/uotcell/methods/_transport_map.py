"""What a fitted map can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from uotcell._errors import ConvergenceError
from uotcell.methods._base import Method

NEWTON_STEPS, NEWTON_TOLERANCE = 20, 1e-3


@dataclass(frozen=True, eq=False, kw_only=True)
class TransportMap:
    """A fitted map from source to target cells.

    Attributes
    ----------
    method
        The estimator.
    params
        Its fitted parameters.
    shift, scale
        Training saw ``(cells − shift) / scale``; ``(dim,)`` and a number. Methods here take and return cells in
        the original coordinates.
    """

    method: Method
    params: Any
    shift: np.ndarray
    scale: float

    def push(self, x: ArrayLike, *, batch_size: int = 16_384) -> np.ndarray:
        """Map source cells to the target.

        Parameters
        ----------
        x
            Cells, seen in training or not, shape ``(n, dim)``.
        batch_size
            Cells mapped at a time, which bounds memory.

        Returns
        -------
        Their images, shape ``(n, dim)``, float32.
        """
        return self._in_blocks(partial(_apply, self.method, "push", self.params), x, batch_size)

    def pull(self, y: ArrayLike, *, batch_size: int = 16_384) -> np.ndarray:
        """Map target cells back to the source.

        Parameters
        ----------
        y
            Cells, shape ``(n, dim)``.
        batch_size
            Cells mapped at a time, which bounds memory.

        Returns
        -------
        Their images, shape ``(n, dim)``, float32.

        Raises
        ------
        TypeError
            If the method learns no inverse.
        """
        return self._in_blocks(partial(_apply, self.method, "pull", self.params), y, batch_size)

    def interpolate(self, x: ArrayLike, t: float, *, batch_size: int = 16_384) -> np.ndarray:
        """Positions of source cells on their straight paths to the target (McCann's interpolation).

        Parameters
        ----------
        x
            Source cells, shape ``(n, dim)``.
        t
            Time in [0, 1], from source to target.
        batch_size
            Cells mapped at a time, which bounds memory.

        Returns
        -------
        Their positions, shape ``(n, dim)``, float32.
        """
        _check_time(t)
        x = np.asarray(x)
        return ((1 - t) * x + t * self.push(x, batch_size=batch_size)).astype(np.float32)

    def velocity(self, x: ArrayLike, t: float = 0.0, *, batch_size: int = 2_048) -> np.ndarray:
        """Velocity of the cell that passes through ``x`` at time ``t``, per unit of the way from source to target.

        Cells move on straight lines, so this is the displacement of the source cell whose line runs through ``x``; it
        is found by Newton's method, and is ``x`` itself at ``t = 0``.

        Parameters
        ----------
        x
            Positions at time ``t``, shape ``(n, dim)``.
        t
            Time in [0, 1].
        batch_size
            Cells at a time, which bounds memory.

        Returns
        -------
        Velocities, shape ``(n, dim)``, float32.

        Raises
        ------
        uotcell.ConvergenceError
            If for some position no such source cell was found.
        """
        _check_time(t)
        departure = np.asarray(x)
        if t > 0:
            departure = self._in_blocks(partial(_departure, self.method, self.params, t), departure, batch_size)
            error = np.abs(self.interpolate(departure, t) - x).max(initial=0.0) / self.scale
            if not error <= NEWTON_TOLERANCE:
                raise ConvergenceError(
                    f"No source cell was found whose path is within {NEWTON_TOLERANCE:g} of every position at t={t:g} "
                    f"(worst: {error:.2g}, in units of spread). Ask for positions closer to the data or a lower `t`."
                )
        return (self.push(departure, batch_size=batch_size) - departure).astype(np.float32)

    def _in_blocks(self, function: Callable[[np.ndarray], jax.Array], x: ArrayLike, batch_size: int) -> np.ndarray:
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self.shift):
            raise ValueError(f"Expected cells of shape (n, {len(self.shift)}), as in the fit, found {x.shape}.")
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` to be at least 1, found {batch_size}.")
        out = np.empty(x.shape, np.float32)
        for start in range(0, len(x), batch_size):
            block = (x[start : start + batch_size] - self.shift) / self.scale
            # Blocks are padded to a power of two, so that calls of any size share few compiled programs.
            padded = np.zeros((min(batch_size, 1 << max(0, len(block) - 1).bit_length()), x.shape[1]), np.float32)
            padded[: len(block)] = block
            out[start : start + len(block)] = np.asarray(function(padded))[: len(block)] * self.scale + self.shift
        return out


# Compiled for the method, not for its bound function: equal methods are equal, their bound functions are not.
@partial(jax.jit, static_argnames=("method", "direction"))
def _apply(method: Method, direction: str, params: Any, x: jax.Array) -> jax.Array:
    return getattr(method, direction)(params, x)


@partial(jax.jit, static_argnames=("method",))
def _departure(method: Method, params: Any, t: jax.Array, x: jax.Array) -> jax.Array:
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


def _check_time(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"Expected `t` to be in [0, 1], from source to target, found {t}.")
