"""Checks shared by the measures that compare two populations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uotcell._memory import check_memory
from uotcell.ot._inputs import as_mass, as_points


def as_populations(
    x: ArrayLike, y: ArrayLike, a: ArrayLike | None, b: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return two populations as float64 and their masses summing to one, or say what is wrong with them."""
    x = as_points(x, "x", nonempty=True)
    y = as_points(y, "y", dim=x.shape[1], nonempty=True)
    a, b = as_mass(a, "a", len(x)), as_mass(b, "b", len(y))
    return x.astype(np.float64), y.astype(np.float64), a / a.sum(), b / b.sum()


def check_pairs(n_bytes: int, what: str) -> None:
    """Raise ``MemoryError`` unless a measure that holds a number for every pair of cells fits into free memory."""
    check_memory(n_bytes, None, what, "Take a random part of the cells", settable=False)
