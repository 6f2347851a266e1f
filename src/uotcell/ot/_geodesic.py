"""Costs along the data: shortest paths in a graph of nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from sklearn.neighbors import NearestNeighbors

# Source cells per call of Dijkstra's algorithm, which returns float64 lengths to all cells.
PATH_BLOCK = 256


@dataclass(frozen=True)
class Geodesic:
    """Length of the shortest path through the data, to a power, as the cost between two cells.

    Paths run along the edges of the graph that joins every cell to its nearest neighbours, in either direction, so
    cells on two branches are far apart even where the branches come close (Tenenbaum et al. 2000; as a cost of
    trajectories, Huguet et al. 2022). A cell outside the graph is joined to its nearest cells of its own side.

    Parameters
    ----------
    n_neighbors
        Neighbours every cell is joined to.
    power
        Exponent of the path length; 2 makes it the counterpart of squared Euclidean distance.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> angle = np.linspace(0, 6, 120)
    >>> arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> coupling = uc.ot.solve_unbalanced(arc[::2], arc[1::2], cost=uc.ot.Geodesic(n_neighbors=4), tau=0.95)
    >>> coupling.push(arc[::2]).shape
    (60, 2)
    """

    n_neighbors: int = 15
    power: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.n_neighbors, bool) or not isinstance(self.n_neighbors, Integral) or self.n_neighbors < 1:
            raise ValueError(f"Expected `n_neighbors` to be a positive integer, found {self.n_neighbors!r}.")
        if not (isinstance(self.power, (int, float)) and np.isfinite(self.power) and self.power > 0):
            raise ValueError(f"Expected `power` to be a positive number, found {self.power!r}.")


def neighbor_graph(points: np.ndarray, n_neighbors: int) -> csr_matrix:
    """Join every cell to its nearest neighbours.

    Parameters
    ----------
    points
        Cells, shape ``(n, d)``.
    n_neighbors
        Neighbours per cell; an edge is kept if either end asks for it.

    Returns
    -------
    Symmetric edge lengths, shape ``(n, n)``, sparse.

    Raises
    ------
    ValueError
        If the graph falls apart.
    """
    n = len(points)
    n_neighbors = min(n_neighbors, n - 1)
    if n_neighbors < 1:
        return csr_matrix((n, n))
    lengths, neighbors = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors()
    # An edge between two cells at one place must not read as no edge at all.
    lengths = np.maximum(lengths.ravel(), np.finfo(np.float64).tiny)
    graph = csr_matrix((lengths, (np.repeat(np.arange(n), n_neighbors), neighbors.ravel())), shape=(n, n))
    graph = graph.maximum(graph.T)
    n_components, labels = connected_components(graph, directed=False)
    if n_components > 1:
        largest = np.bincount(labels).max()
        raise ValueError(
            f"Expected the graph of {n_neighbors} nearest neighbours to connect all {n} cells, found {n_components} "
            f"components, the largest of {largest} cells. Raise `n_neighbors`, or remove cells that are far from all "
            "others and repeated cells."
        )
    return graph


def path_lengths(graph: csr_matrix, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Lengths of the shortest paths between two sets of cells.

    Parameters
    ----------
    graph
        Symmetric edge lengths, shape ``(n, n)``, sparse.
    rows, columns
        Cells, row numbers into the graph.

    Returns
    -------
    Lengths, shape ``(len(rows), len(columns))``, float32.
    """
    out = np.empty((len(rows), len(columns)), np.float32)
    for start in range(0, len(rows), PATH_BLOCK):
        block = rows[start : start + PATH_BLOCK]
        out[start : start + len(block)] = dijkstra(graph, directed=False, indices=block)[:, columns]
    return out


class Paths:
    """Path lengths from all cells of one set to fixed cells, and from cells outside it by way of their neighbours.

    Parameters
    ----------
    points
        Cells of the set, shape ``(n, d)``.
    lengths
        Path lengths to the fixed cells, shape ``(n, p)``, float32.
    geodesic
        Neighbours and power.
    others
        Further cells of the graph.
    """

    def __init__(self, points: np.ndarray, lengths: np.ndarray, geodesic: Geodesic, others: np.ndarray | None = None):
        self.lengths, self.geodesic, self.power = lengths, geodesic, geodesic.power
        self._own = _search(points, geodesic.n_neighbors)
        # A cell has as few neighbours of its own side as it would have had in the graph: with more, some steps would
        # be short cuts, and a cell of the set nearer to others than its own paths say.
        self._all = None if others is None else _search(np.concatenate([points, others]), geodesic.n_neighbors)

    def costs(self, points: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of cells, in the set or not, to fixed cells; of a cell in the set, those of its own paths.

        Parameters
        ----------
        points
            Cells, shape ``(k, d)``.
        support
            Fixed cells, as columns of ``lengths``; all by default.

        Returns
        -------
        Costs, shape ``(k, p)``, float32.
        """
        edges, neighbors = self._own.kneighbors(points)
        if self._all is not None:
            reach = self._all.kneighbors(points)[0][:, -1:]
            edges[:, 1:] = np.where(edges[:, 1:] <= reach, edges[:, 1:], np.inf)
        table = self.lengths if support is None else self.lengths[:, support]
        best = table[neighbors[:, 0]] + edges[:, :1].astype(np.float32)
        for edge, neighbor in zip(edges.T[1:].astype(np.float32), neighbors.T[1:], strict=True):
            np.minimum(best, table[neighbor] + edge[:, None], out=best)
        return best**self.power


def _search(points: np.ndarray, n_neighbors: int) -> NearestNeighbors:
    return NearestNeighbors(n_neighbors=min(n_neighbors, len(points))).fit(points)


class GeodesicCost:
    """Path lengths between source and target cells in the graph of all of them.

    Parameters
    ----------
    x, y
        Source and target cells, shapes ``(n, d)`` and ``(m, d)``.
    geodesic
        Neighbours and power.
    lengths
        Path lengths between them where they are known, shape ``(n, m)``, float32.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, geodesic: Geodesic, lengths: np.ndarray | None = None) -> None:
        if lengths is None:
            n, m = len(x), len(y)
            graph = neighbor_graph(np.concatenate([x, y]), geodesic.n_neighbors)
            lengths = path_lengths(graph, np.arange(n), np.arange(n, n + m))
        self.geodesic = geodesic
        # A view, so that the table is held once.
        self.source, self.target = Paths(x, lengths, geodesic, y), Paths(y, lengths.T, geodesic, x)

    def rows(self, x: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of source cells, seen or not, to the target cells, shape ``(k, m)``."""
        return self.source.costs(x, support)

    def columns(self, y: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of target cells, seen or not, to the source cells, shape ``(k, n)``."""
        return self.target.costs(y, support)

    def seen_rows(self, i: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of source cells given by their row numbers, shape ``(k, m)``."""
        lengths = self.source.lengths[i]
        return (lengths if support is None else lengths[:, support]) ** self.source.power
