"""Checks of points, masses and keys before any computation."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from numpy.typing import ArrayLike

# Of such coordinates squares, their sums over many dimensions, and the inverses of these fit into float32.
SMALLEST_CLOUD, LARGEST_CLOUD = 1e-15, 1e15


def as_points(points: ArrayLike, name: str, *, dim: int | None = None, nonempty: bool = False) -> np.ndarray:
    """Return points as a finite float array of shape ``(n_cells, n_dims)``, or say what is wrong with them."""
    points = np.asarray(points)
    if points.ndim != 2 or points.dtype.kind not in "fiub":
        raise ValueError(
            f"Expected `{name}` to be a dense numeric array of shape (n_cells, n_dims), "
            f"found shape {points.shape} and dtype {points.dtype}."
        )
    if nonempty and points.size == 0:
        raise ValueError(
            f"Expected `{name}` to hold at least one cell and one dimension, found shape {points.shape}. "
            "Check how its cells were selected."
        )
    if dim is not None and points.shape[1] != dim:
        raise ValueError(f"Expected `{name}` to have {dim} dimensions, as in the fit, found {points.shape[1]}.")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise ValueError(
            f"Expected `{name}` to be finite, found NaN or inf in {bad.sum()} of {len(points)} rows "
            f"(first: row {int(bad.argmax())}). Remove these cells or recompute the representation."
        )
    return points


def as_float32(sides: Sequence[np.ndarray], shift: ArrayLike) -> list[np.ndarray]:
    """Move all sides by ``−shift`` and round them to float32, or say that their squares would not fit into it."""
    rounded, ends = [], []
    for side in sides:
        moved = side - shift
        ends += [moved.min(axis=0), moved.max(axis=0)]
        with np.errstate(over="ignore"):  # what overflows is refused
            rounded.append(np.asarray(moved, np.float32))
    largest, spread = float(np.abs(ends).max()), float(np.ptp(ends, axis=0).max())
    if largest > LARGEST_CLOUD or 0 < spread < SMALLEST_CLOUD:
        found = largest if largest > LARGEST_CLOUD else spread
        raise ValueError(
            f"Expected cells that differ by {SMALLEST_CLOUD:g} to {LARGEST_CLOUD:g}, found {found:.3g}: float32 does "
            "not hold their squares. Divide all cells by one number."
        )
    return rounded


def as_mass(mass: ArrayLike | None, name: str, n: int) -> np.ndarray:
    """Return masses as float64 of shape ``(n,)``; ``None`` gives every cell 1/n."""
    if mass is None:
        return np.full(n, 1.0 / n)
    mass = np.asarray(mass, dtype=np.float64)
    if mass.shape != (n,):
        raise ValueError(f"Expected `{name}` to have shape ({n},), one mass per cell, found {mass.shape}.")
    if not np.isfinite(mass).all() or (mass < 0).any() or mass.sum() <= 0:
        raise ValueError(
            f"Expected `{name}` to be finite, non-negative and not all zero, found minimum {mass.min():.3g} "
            f"and sum {mass.sum():.3g}."
        )
    return mass


def padded_size(n: int) -> int:
    """Return ``n`` rounded up by at most an eighth, so that clouds of similar size share compiled programs."""
    step = max(1, 1 << max(0, n.bit_length() - 4))
    return -(-n // step) * step


def on_device(array: ArrayLike, dtype: np.typing.DTypeLike = np.float32) -> jax.Array:
    """Put an array on the device. ``jnp.asarray`` would compile a program for every shape."""
    return jax.device_put(np.asarray(array, dtype))


def as_key(rng: jax.Array | int) -> jax.Array:
    """Turn a seed into a jax key; pass a key through."""
    return jax.random.key(rng) if isinstance(rng, (int, np.integer)) else rng
