"""Whether velocities at the boundary of a cell type point into the type that follows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.neighbors import NearestNeighbors

from uotcell.ot._inputs import as_points

# Numbers held at a time (32 MB).
BLOCK_ENTRIES = 4_000_000


def cross_boundary_direction(
    x: ArrayLike, v: ArrayLike, labels: ArrayLike, edges: Sequence[tuple[str, str]], *, n_neighbors: int = 30
) -> tuple[np.ndarray, float]:
    """Cross-boundary direction correctness (CBDir): cosine between velocities and the way to the type that follows.

    For an edge (A, B), over the cells i of A that have cells of B among their nearest neighbours: the mean over these
    neighbours j of ``cos(v_i, x_j − x_i)``, averaged over i (Qiao and Huang, PNAS 2021). 1 is a perfect direction, −1
    the reverse.

    Parameters
    ----------
    x
        Cells, shape ``(n, d)``.
    v
        Their velocities, shape ``(n, d)``, in any unit of time. A cell with NaN has none: it counts as a neighbour
        only. A velocity of zero has cosine 0.
    labels
        Their types, shape ``(n,)``.
    edges
        Pairs (A, B) of types of which B follows A.
    n_neighbors
        Other cells to look at.

    Returns
    -------
    Score of every edge, shape ``(n_edges,)``, NaN where no cell of A has both a velocity and a neighbour of B; and the
    mean over the edges that have a score.

    Raises
    ------
    ValueError
        If shapes do not match, cells are not finite, or an edge is not a pair of two labels that exist.

    References
    ----------
    Qiao and Huang (2021), Representation learning of RNA velocity reveals robust cell transitions, PNAS 118(49),
    e2105859118, doi:10.1073/pnas.2105859118

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x, labels = np.arange(6.0)[:, None], ["A", "A", "A", "B", "B", "B"]
    >>> uc.metrics.cross_boundary_direction(x, np.ones((6, 1)), labels, [("A", "B")], n_neighbors=2)
    (array([1.]), 1.0)
    """
    x, directions, labels = check_field(x, v, labels)
    edges = check_edges(edges, labels)
    steps = boundary_steps(x, ~np.isnan(directions).any(axis=1), labels, edges, n_neighbors=n_neighbors)
    scores = np.array([mean_or_nan((directions[rows] * step).sum(axis=1)) for rows, step in steps])
    return scores, mean_or_nan(scores[~np.isnan(scores)])


def check_field(x: ArrayLike, v: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cells as float64, velocities of length one (or zero, or NaN), and labels as strings."""
    x, v, labels = as_points(x, "x").astype(np.float64), np.asarray(v, np.float64), np.asarray(labels).astype(str)
    if v.shape != x.shape or labels.shape != (len(x),) or len(x) < 2:
        raise ValueError(
            f"Expected `v` to have the shape of `x` and `labels` an entry for each of at least two cells, found shapes "
            f"{x.shape}, {v.shape} and {labels.shape}."
        )
    if np.isinf(v).any():
        raise ValueError("Expected `v` to be finite, or NaN for a cell without velocity, found inf.")
    return x, _unit(v), labels


def check_edges(edges: Sequence[tuple[str, str]], labels: np.ndarray) -> list[tuple[str, str]]:
    """Return the edges as pairs of strings, or say what is wrong with them."""
    is_list = not isinstance(edges, str) and len(edges) > 0
    if not is_list or any(isinstance(edge, str) or len(edge) != 2 for edge in edges):
        raise ValueError(f"Expected `edges` to be a list of pairs of types such as ('A', 'B'), found {edges!r}.")
    edges, known = [(str(start), str(end)) for start, end in edges], set(labels.tolist())
    for edge in edges:
        if edge[0] == edge[1] or not known.issuperset(edge):
            raise ValueError(f"Expected edges between two of the types {sorted(known)}, found {edge}.")
    return edges


def boundary_steps(
    x: np.ndarray, moves: np.ndarray, labels: np.ndarray, edges: list[tuple[str, str]], *, n_neighbors: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the cells at every boundary and the mean of the unit steps to their neighbours behind it.

    The mean of the cosines with these steps is the product of a cell's unit velocity and this vector, so one pass
    serves any number of velocities.

    Parameters
    ----------
    x
        Cells, shape ``(n, d)``.
    moves
        Whether a cell has a velocity, shape ``(n,)``.
    labels
        Types, shape ``(n,)``.
    edges
        Pairs of types.
    n_neighbors
        Other cells to look at.

    Returns
    -------
    For every edge, rows of the cells, shape ``(k,)``, and vectors, shape ``(k, d)``.
    """
    n_neighbors = min(n_neighbors, len(x) - 1)
    search = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(x)
    block, found = max(1, BLOCK_ENTRIES // (n_neighbors * x.shape[1])), []
    for start, end in edges:
        candidates = np.flatnonzero(moves & (labels == start))
        rows, steps = [candidates[:0]], [x[:0]]
        for first in range(0, len(candidates), block):
            cells = candidates[first : first + block]
            nearest = _without_self(search.kneighbors(x[cells], return_distance=False), cells)
            behind = labels[nearest] == end
            units = _unit(x[nearest] - x[cells, None]) * behind[..., None]
            at_boundary = behind.any(axis=1)
            rows.append(cells[at_boundary])
            steps.append(units.sum(axis=1)[at_boundary] / behind.sum(axis=1)[at_boundary, None])
        found.append((np.concatenate(rows), np.concatenate(steps)))
    return found


def mean_or_nan(values: np.ndarray) -> float:
    """Mean, NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms == 0, 1.0, norms)


def _without_self(nearest: np.ndarray, cells: np.ndarray) -> np.ndarray:
    is_self = nearest == cells[:, None]
    # Among many copies of a cell, the cell itself may not be found.
    is_self[~is_self.any(axis=1), -1] = True
    return nearest[~is_self].reshape(len(cells), -1)
