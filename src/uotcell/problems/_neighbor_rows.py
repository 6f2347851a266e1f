"""Rows of a Markov chain from distances to nearest cells; arrays in, sparse rows out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors


class RowWriter:
    """A CSR matrix whose row lengths are known, filled some rows at a time without a second copy of it.

    Parameters
    ----------
    lengths
        Number of entries of every row, shape ``(n,)``.
    """

    def __init__(self, lengths: np.ndarray):
        self.indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        index = sparse.get_index_dtype(maxval=max(len(lengths), self.indptr[-1]))
        self.indices = np.zeros(self.indptr[-1], index)
        self.data = np.zeros(self.indptr[-1])

    def write(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        """Set all entries of the given rows, one row after another, columns ascending; both ``(n_entries,)``."""
        lengths = self.indptr[rows + 1] - self.indptr[rows]
        places = np.repeat(self.indptr[rows] - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        self.indices[places] = columns
        self.data[places] = values

    def matrix(self) -> sparse.csr_matrix:
        """Return the square matrix on the same arrays, float64."""
        n = len(self.indptr) - 1
        indptr = self.indptr.astype(self.indices.dtype, copy=False)
        return sparse.csr_matrix((self.data, self.indices, indptr), shape=(n, n), copy=False)


def gaussian_weights(distances: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Gaussian kernel of distances whose bandwidth is the mean distance of the row, each row summing to one.

    Parameters
    ----------
    distances
        Distances of all rows, shape ``(n_entries,)``.
    rows
        Row of each, shape ``(n_entries,)``, ascending; every row has an entry.
    n
        Number of rows.

    Returns
    -------
    Weights, shape ``(n_entries,)``, float64.
    """
    bandwidth = np.bincount(rows, distances, minlength=n) / np.bincount(rows, minlength=n)
    scaled = (distances / np.maximum(bandwidth, np.finfo(np.float64).tiny)[rows]) ** 2
    # Less the smallest of the row, which cancels in the weights: no row underflows.
    starts = np.searchsorted(rows, np.arange(n))
    weights = np.exp(-0.5 * (scaled - np.minimum.reduceat(scaled, starts)[rows]))
    return weights / np.bincount(rows, weights, minlength=n)[rows]


def nearest_rows(
    points: np.ndarray, candidates: np.ndarray, *, n_neighbors: int, batch_size: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Step from points to the candidates nearest to them.

    Parameters
    ----------
    points
        Where the steps start, shape ``(n, d)``.
    candidates
        Where they may end, shape ``(m, d)``.
    n_neighbors
        Candidates a point may step to, at most ``m``.
    batch_size
        Points at a time.

    Yields
    ------
    Points of the batch, the candidates of each in ascending order and their probabilities, both
    ``(n_batch * n_neighbors,)``.
    """
    # Searching may take distances from inner products: these are exact near the origin, but blur cells that coincide.
    center = candidates.mean(axis=0, dtype=np.float64)
    candidates = candidates - center
    index = NearestNeighbors(n_neighbors=n_neighbors).fit(candidates)
    for start in range(0, len(points), batch_size):
        batch = points[start : start + batch_size] - center
        columns = np.sort(index.kneighbors(batch, return_distance=False), axis=1)
        distances = np.stack([np.linalg.norm(batch - candidates[column], axis=1) for column in columns.T], axis=1)
        rows = np.repeat(np.arange(len(batch)), n_neighbors)
        weights = gaussian_weights(distances.ravel(), rows, len(batch))
        yield slice(start, start + len(batch)), columns.ravel(), weights


def closed_class(points: np.ndarray, *, n_neighbors: int, batch_size: int) -> sparse.csr_matrix:
    """Let points step among themselves: to themselves and to those that are near, in both directions.

    A step from i to j is possible if j is one of the points nearest to i, or i one of those nearest to j. So whatever
    can be reached can be left again, and the connected components are the classes of the chain.

    Parameters
    ----------
    points
        The points, shape ``(m, d)``.
    n_neighbors
        Points that are near, the point itself included; at most ``m``.
    batch_size
        Points at a time.

    Returns
    -------
    Matrix ``(m, m)`` float64, rows summing to one.
    """
    m, points = len(points), points.astype(np.float64)
    batches = nearest_rows(points, points, n_neighbors=n_neighbors, batch_size=batch_size)
    near = np.concatenate([columns for _, columns, _ in batches]).astype(np.int64)
    itself, rows = np.arange(m, dtype=np.int64), np.repeat(np.arange(m, dtype=np.int64), n_neighbors)
    # Where many points coincide, a point may not be among those nearest to it.
    entries = np.unique(np.concatenate([rows * m + near, near * m + rows, itself * m + itself]))
    rows, columns = np.divmod(entries, m)
    distances = np.empty(len(entries))
    for start in range(0, len(entries), batch_size):
        batch = slice(start, start + batch_size)
        distances[batch] = np.linalg.norm(points[rows[batch]] - points[columns[batch]], axis=1)
    return sparse.csr_matrix((gaussian_weights(distances, rows, m), (rows, columns)), shape=(m, m))
