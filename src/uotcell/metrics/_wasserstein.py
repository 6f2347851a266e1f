"""Wasserstein distance between two weighted populations, by an assignment of equally many points."""

from __future__ import annotations

from typing import Literal

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from uotcell.metrics._inputs import as_populations, check_pairs
from uotcell.ot._inputs import as_key

_GROUND_COSTS = {1: "euclidean", 2: "sqeuclidean"}


def wasserstein(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    order: Literal[1, 2] = 1,
    max_points: int = 1_000,
    rng: jax.Array | int = 0,
) -> float:
    r"""Wasserstein distance ``(min_P Σ Pᵢⱼ ‖xᵢ − yⱼ‖ᵖ)^(1/p)`` of the Euclidean distance, without regularisation.

    Either side becomes ``k`` points of equal mass, which an optimal assignment pairs. This is exact, but for rounding,
    if all masses are multiples of ``1/k`` for some ``k`` up to ``max_points``: uniform masses on equally many cells, or
    on ``n`` and ``m`` with a common multiple in reach, or masses that count cells.

    Otherwise ``k`` is ``max_points`` and the value an approximation: both sides are drawn by systematic resampling
    (Kitagawa 1996), ``k`` evenly spaced quantiles of the mass from one random start. A cell of mass ``mᵢ`` is drawn
    ``k mᵢ`` times, rounded down or up. With fewer cells than ``max_points`` the mass that is out of place is below the
    number of cells over ``k``: the distance of 300 weighted cells to 200 was within 1 % of the exact one. With more
    cells than that they are a sample, and distances between samples are larger than those between their populations,
    by 5 % for 3,000 and 2,500 cells in five dimensions, by more in many. Compare with two halves of the observed cells.
    The quantiles run along the first feature, then the next; both sides have the same start, so that equal populations
    have distance zero, and the order of the cells does not count.

    Parameters
    ----------
    x, y
        Predicted and observed cells, shapes ``(n, d)`` and ``(m, d)``.
    a, b
        Their masses, uniform by default. Only their ratios count.
    order
        The power p of the distance, 1 or 2.
    max_points
        Most points to assign on either side. The time grows with its cube, the memory with its square.
    rng
        Seed or jax key of the random start. Not used where the value is exact.

    Returns
    -------
    The distance in units of the features, not negative.

    Raises
    ------
    ValueError
        If cells or masses are empty, not finite, or do not fit together, ``order`` is neither 1 nor 2, or
        ``max_points`` is not a positive integer.
    MemoryError
        If the costs between the points do not fit into free memory.

    References
    ----------
    Kitagawa (1996), Monte Carlo filter and smoother for non-Gaussian nonlinear state space models, Journal of
    Computational and Graphical Statistics 5(1), 1-25

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.wasserstein([[0.0, 0.0], [3.0, 0.0]], [[3.0, 4.0]], a=[1.0, 3.0])
    4.25
    """
    x, y, a, b = as_populations(x, y, a, b)
    if order not in _GROUND_COSTS:
        raise ValueError(f"Expected `order` to be 1 or 2, found {order!r}.")
    if isinstance(max_points, bool) or not isinstance(max_points, (int, np.integer)) or max_points < 1:
        raise ValueError(f"Expected `max_points` to be a positive integer, found {max_points!r}.")
    (x, a), (y, b) = _in_order(x, a), _in_order(y, b)
    n_points = _smallest_exact(a, b, max_points)
    if n_points is None:
        generator = np.random.default_rng(np.asarray(jax.random.key_data(as_key(rng))))
        n_points, start = max_points, generator.uniform()
    else:
        start = 0.5  # as far as can be from the edges between two cells
    # Costs, and the assignment's copy of them.
    check_pairs(16 * n_points**2, f"the costs between {n_points:,} points a side")
    points = (side[_resample(mass, n_points, start)] for side, mass in ((x, a), (y, b)))
    costs = cdist(*points, _GROUND_COSTS[order])
    return float(costs[linear_sum_assignment(costs)].mean() ** (1 / order))


def _in_order(points: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells with mass, by their first feature and, where it ties, by the next; copies by their mass."""
    points, mass = points[mass > 0], mass[mass > 0]
    order = np.lexsort([mass, *points.T[::-1]])
    return points[order], mass[order]


def _smallest_exact(a: np.ndarray, b: np.ndarray, max_points: int) -> int | None:
    """Fewest points of equal mass that represent both masses exactly, None if these are more than allowed."""
    masses = np.concatenate([a, b])
    for n_points in range(max(len(a), len(b)), max_points + 1):
        counts = n_points * masses
        if np.abs(counts - np.rint(counts)).max() < 1e-6:
            return n_points
    return None


def _resample(mass: np.ndarray, n_points: int, start: float) -> np.ndarray:
    """Find the cells at the quantiles ``(start + 0, 1, …) / n_points`` of the mass, shape ``(n_points,)``."""
    cumulated = np.cumsum(mass)
    quantiles = (start + np.arange(n_points)) / n_points * cumulated[-1]
    # Rounding could carry the last quantile to the end of the mass, where no cell is.
    return np.minimum(np.searchsorted(cumulated, quantiles, side="right"), len(mass) - 1)
