"""Distances between populations that are averages over pairs of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from uotcell.metrics._inputs import as_populations, check_pairs

# From one octave below the median distance to one above. In tens of dimensions distances differ little, so that a
# narrower kernel sees every cell alone, and a wider one little but the means.
WIDTH_MULTIPLES = (0.5, 1.0, 2.0)
# Distances held at a time: 32 MiB.
_BLOCK_ENTRIES = 1 << 22
# Bytes per pair that the median distance takes: it needs all of them, in order.
_MEDIAN_BYTES = 48


def mmd(
    x: ArrayLike,
    y: ArrayLike,
    *,
    widths: Sequence[float] | None = None,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
) -> float:
    """Squared maximum mean discrepancy, averaged over Gaussian kernels (Gretton et al. 2012, equation 5).

    For each width σ, ``E k(x, x') + E k(y, y') − 2 E k(x, y)`` with ``k(x, y) = exp(−‖x − y‖² / (2σ²))``. The estimate
    is the biased one (V-statistic): pairs of a cell with itself count, the value is never negative, and two samples of
    one population have about ``(1 − E k)(1/n + 1/m)``. Compare with two halves of the observed cells.

    Parameters
    ----------
    x, y
        Predicted and observed cells, shapes ``(n, d)`` and ``(m, d)``.
    widths
        Widths σ of the kernels, in units of distance. By default 0.5, 1 and 2 times the median distance between two
        observed cells, copies of one cell left out. It depends on ``y`` alone, so that all predictions of one
        population are measured by one yardstick.
    a, b
        Their masses, uniform by default. Only their ratios count.

    Returns
    -------
    The squared discrepancy, without unit: zero for equal measures, at most 2.

    Raises
    ------
    ValueError
        If cells, masses or widths are not as above, or all observed cells are equal and no widths are given.
    MemoryError
        If no widths are given and the distances between the observed cells do not fit into free memory.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> bool(uc.metrics.mmd(x + 1.0, x) > uc.metrics.mmd(x + 0.5, x) > uc.metrics.mmd(x, x))
    True
    """
    x, y, a, b = as_populations(x, y, a, b)
    if widths is None:
        check_pairs(_MEDIAN_BYTES * len(y) ** 2, f"the distances between {len(y):,} observed cells")
        widths = np.array(WIDTH_MULTIPLES) * _median_distance(cdist(y, y, "sqeuclidean"), b)
    widths = np.asarray(widths, np.float64)
    if widths.ndim != 1 or widths.size == 0 or not (np.isfinite(widths).all() and (widths > 0).all()):
        raise ValueError(f"Expected `widths` to be a list of positive numbers, found {widths.tolist()}.")

    def kernel(points: np.ndarray, others: np.ndarray) -> np.ndarray:
        squares = cdist(points, others, "sqeuclidean")
        return sum(np.exp(squares / (-2 * width**2)) for width in widths) / len(widths)

    return max(-_contrast(kernel, x, y, a, b), 0.0)  # rounding can leave −1e-17


def energy_distance(x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None) -> float:
    """Energy distance ``2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖`` (Székely and Rizzo 2013).

    The distance is the plain Euclidean one, with which the value is zero for equal measures only. The "E-distance" of
    Peidli et al. (2024) takes its square, with which the same formula is ``2 ‖mean x − mean y‖²``, whatever else
    differs. In one dimension :func:`scipy.stats.energy_distance` is the square root of this number. The estimate is the
    V-statistic: pairs of a cell with itself count.

    Parameters
    ----------
    x, y
        Predicted and observed cells, shapes ``(n, d)`` and ``(m, d)``.
    a, b
        Their masses, uniform by default. Only their ratios count.

    Returns
    -------
    The energy distance in units of the distance, never negative.

    Raises
    ------
    ValueError
        If cells or masses are empty, not finite, or do not fit together.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.energy_distance([[0.0, 0.0]], [[3.0, 4.0]])
    10.0
    """
    x, y, a, b = as_populations(x, y, a, b)
    return max(_contrast(cdist, x, y, a, b), 0.0)  # rounding can leave −1e-16


def _contrast(function: Callable, x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    def mean(points: np.ndarray, others: np.ndarray, mass: np.ndarray, other_mass: np.ndarray) -> float:
        step = max(1, _BLOCK_ENTRIES // len(others))
        blocks = [slice(start, start + step) for start in range(0, len(points), step)]
        return sum(float(mass[rows] @ function(points[rows], others) @ other_mass) for rows in blocks)

    return 2 * mean(x, y, a, b) - mean(x, x, a, a) - mean(y, y, b, b)


def _median_distance(squares: np.ndarray, mass: np.ndarray) -> float:
    """Median distance between two different cells, each pair weighing the product of its masses."""
    rows, columns = np.triu_indices(len(mass), k=1)
    distances, pair_mass = np.sqrt(squares[rows, columns]), mass[rows] * mass[columns]
    counted = (distances > 0) & (pair_mass > 0)
    if not counted.any():
        raise ValueError("Expected `y` to hold two different cells with mass, found one. Give `widths`.")
    order = np.argsort(distances[counted])
    distances, cumulated = distances[counted][order], np.cumsum(pair_mass[counted][order])
    # Half the mass may be reached exactly between two pairs, as in any even number of equal ones: take their mean, and
    # do not leave it to rounding.
    middle = cumulated[-1] / 2 * np.array([1 - 1e-9, 1 + 1e-9])
    return float(distances[np.searchsorted(cumulated, middle)].mean())
