"""Whether each cell lands closer to its own truth than to the others'."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from uotcell.ot._inputs import as_points

# Distances held at a time: 32 MiB.
_BLOCK_ENTRIES = 1 << 22


def foscttm(pushed: ArrayLike, target: ArrayLike) -> float:
    """Fraction of samples closer than the true match (Liu et al. 2019), where each cell's true image is known.

    For each cell, the share of the other target cells that are closer to where it was pushed than its own truth; for
    each target cell, the share of the other pushed cells that are closer to it than its own. Half of those equally
    close counts. The mean over both directions and all cells is returned.

    Parameters
    ----------
    pushed
        Pushed cells, shape ``(n, d)``.
    target
        Where they really are, in the same order, shape ``(n, d)``. Blocks of rows are compared in turn, so that memory
        does not grow with ``n²``.

    Returns
    -------
    A share in [0, 1]: 0 = every cell is closest to its own truth, 0.5 = chance, which is also what a map of all cells
    to one point has.

    Raises
    ------
    ValueError
        If the arrays are not of one shape, not finite, or of fewer than two cells.

    References
    ----------
    Liu, Huang, Singh, Vert, Noble (2019), Jointly embedding multiple single-cell omics measurements, WABI 2019,
    doi:10.4230/LIPIcs.WABI.2019.10

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.foscttm([[0.1], [1.1], [2.1]], [[0.0], [1.0], [2.0]])
    0.0
    >>> round(uc.metrics.foscttm([[0.0], [9.0], [8.0]], [[0.0], [8.0], [9.0]]), 2)
    0.33
    """
    pushed, target = (as_points(p, name).astype(np.float64) for p, name in ((pushed, "pushed"), (target, "target")))
    if pushed.shape != target.shape or len(pushed) < 2:
        raise ValueError(
            "Expected `pushed` and `target` to have one shape with a row for each of at least two cells, "
            f"found {pushed.shape} and {target.shape}. Row i of one must be the truth of row i of the other."
        )
    return (_share_closer(pushed, target) + _share_closer(target, pushed)) / 2


def _share_closer(points: np.ndarray, candidates: np.ndarray) -> float:
    """Mean share of the candidates that are closer to a point than the candidate in its own row."""
    n = len(points)
    block = max(1, _BLOCK_ENTRIES // n)
    closer = 0.0
    for first in range(0, n, block):
        distances = cdist(points[first : first + block], candidates, "sqeuclidean")
        rows = np.arange(len(distances))
        own = distances[rows, first + rows][:, None]
        # The candidate itself is equally close, and not among the others.
        closer += (distances < own).sum() + ((distances == own).sum() - len(rows)) / 2
    return float(closer / (n * (n - 1)))
