"""Where pushed cells land among the cells really seen at the target time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.neighbors import NearestNeighbors


def landing_shares(
    pushed: ArrayLike, target: ArrayLike, target_labels: ArrayLike, *, n_neighbors: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Share of every label among the nearest target cells of each pushed cell.

    Parameters
    ----------
    pushed
        Pushed source cells, shape ``(n, d)``.
    target
        Target cells, shape ``(m, d)``.
    target_labels
        Their labels, shape ``(m,)``.
    n_neighbors
        Target cells to look at, at most ``m``.

    Returns
    -------
    Shares ``(n, n_labels)``, rows summing to one, and the labels in the order of the columns.

    Examples
    --------
    >>> import uotcell as uc
    >>> pushed, target, labels = [[0.1], [0.9]], [[0.0], [1.0]], ["early", "late"]
    >>> shares, names = uc.metrics.landing_shares(pushed, target, labels, n_neighbors=1)
    >>> shares.tolist(), names.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], ['early', 'late'])
    """
    labels, codes = np.unique(np.asarray(target_labels).astype(str), return_inverse=True)
    nearest = nearest_cells(pushed, target, n_neighbors=n_neighbors)
    return np.eye(len(labels))[codes[nearest]].mean(axis=1), labels


def nearest_cells(pushed: ArrayLike, target: ArrayLike, *, n_neighbors: int) -> np.ndarray:
    """Rows of the target cells nearest to each pushed cell, shape ``(n, min(n_neighbors, m))``."""
    n_neighbors = min(n_neighbors, len(target))
    return NearestNeighbors(n_neighbors=n_neighbors).fit(target).kneighbors(pushed, return_distance=False)


def transition_share(
    pushed: ArrayLike,
    source_labels: ArrayLike,
    target: ArrayLike,
    target_labels: ArrayLike,
    origin: str,
    destination: str,
    *,
    weights: ArrayLike | None = None,
    n_neighbors: int = 10,
) -> float:
    """Share of the pushed cells of one label that lands among target cells of another (or the same).

    Parameters
    ----------
    pushed, target, target_labels, n_neighbors
        See :func:`landing_shares`.
    source_labels
        Labels of the pushed cells, shape ``(n,)``.
    origin, destination
        The two labels.
    weights
        Masses of the pushed cells, uniform by default.

    Returns
    -------
    A share in [0, 1]; NaN if no cell bears ``origin``.

    Examples
    --------
    >>> import uotcell as uc
    >>> pushed, target, labels = [[0.1], [0.9]], [[0.0], [1.0]], ["early", "late"]
    >>> uc.metrics.transition_share(pushed, ["early", "early"], target, labels, "early", "late", n_neighbors=1)
    0.5
    """
    of_origin = np.asarray(source_labels).astype(str) == str(origin)
    weights = np.ones(len(of_origin)) if weights is None else np.asarray(weights, np.float64)
    if not weights[of_origin].sum() > 0:
        return float("nan")
    shares, labels = landing_shares(np.asarray(pushed)[of_origin], target, target_labels, n_neighbors=n_neighbors)
    return float(np.average(shares @ (labels == str(destination)), weights=weights[of_origin]))


def clonal_fate_accuracy(
    pushed: ArrayLike,
    source_clones: sparse.spmatrix | ArrayLike,
    target: ArrayLike,
    target_clones: sparse.spmatrix | ArrayLike,
    target_labels: ArrayLike,
    *,
    n_neighbors: int = 10,
) -> float:
    """Share of cells, of clones seen at both times, that land in a state their clone really reached.

    A pushed cell lands in the commonest label of its nearest target cells; it counts as right if some target cell of
    its clone bears that label.

    Parameters
    ----------
    pushed, target, target_labels, n_neighbors
        See :func:`landing_shares`.
    source_clones, target_clones
        Cells × clones membership, shapes ``(n, n_clones)`` and ``(m, n_clones)``.

    Returns
    -------
    A share in [0, 1].

    Raises
    ------
    ValueError
        If no clone is seen at both times.

    Examples
    --------
    >>> import uotcell as uc
    >>> pushed, target, labels = [[0.1], [0.9]], [[0.0], [1.0]], ["early", "late"]
    >>> clones = [[1, 0], [0, 1]]  # cells × clones, on both sides
    >>> uc.metrics.clonal_fate_accuracy(pushed, clones, target, clones, labels, n_neighbors=1)
    1.0
    """
    hits, seen = clonal_hits(
        landing_labels(pushed, target, target_labels, n_neighbors=n_neighbors),
        source_clones,
        target_clones,
        target_labels,
    )
    return float(hits[seen].mean())


def landing_labels(
    pushed: ArrayLike, target: ArrayLike, target_labels: ArrayLike, *, n_neighbors: int = 10
) -> np.ndarray:
    """Commonest label among the nearest target cells of each pushed cell, see :func:`landing_shares`."""
    shares, labels = landing_shares(pushed, target, target_labels, n_neighbors=n_neighbors)
    return labels[shares.argmax(axis=1)]


def clonal_hits(
    landed: np.ndarray,
    source_clones: sparse.spmatrix | ArrayLike,
    target_clones: sparse.spmatrix | ArrayLike,
    target_labels: ArrayLike,
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each cell landed in a label its clone reached, and whether its clone was seen at both times.

    Parameters
    ----------
    landed
        Label of each source cell at the target, shape ``(n,)``.
    source_clones, target_clones, target_labels
        See :func:`clonal_fate_accuracy`.

    Returns
    -------
    Two boolean arrays of shape ``(n,)``.

    Raises
    ------
    ValueError
        If no clone is seen at both times.
    """
    labels, codes = np.unique(np.asarray(target_labels).astype(str), return_inverse=True)
    member = sparse.csr_matrix(target_clones).astype(bool).astype(np.float64)
    reached = sparse.csr_matrix(source_clones).astype(np.float64) @ (member.T @ np.eye(len(labels))[codes]) > 0
    seen = reached.any(axis=1)
    if not seen.any():
        raise ValueError("Expected at least one clone with cells at both times, found none.")
    return reached[np.arange(len(landed)), np.searchsorted(labels, landed)], seen
