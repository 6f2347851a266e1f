"""A high-dimensional field seen in a two-dimensional embedding; plain arrays in, float64 out."""

from __future__ import annotations

import numpy as np

_BLOCK = 2048  # source cells at a time, so that (cells, neighbours, dims) stays small


def project_velocity(
    x: np.ndarray,
    v: np.ndarray,
    embedding: np.ndarray,
    *,
    push: np.ndarray | None = None,
    n_neighbors: int = 30,
    sharpness: float = 10.0,
) -> np.ndarray:
    r"""Project a field to an embedding by the neighbouring cells it points to.

    The candidates for a step of cell ``i`` are the `n_neighbors` cells nearest to it and, because a transport map
    reaches to another time point, the `n_neighbors` cells nearest to ``push_i``. With embedding positions ``z``,

    .. math:: p_{ij} \propto \exp(s \cos(v_i, x_j - x_i)), \qquad
              \sum_j (p_{ij} - 1 / n_i)\,(z_j - z_i),

    the expected step less the one of a cell that steps blindly among its ``n_i`` candidates (La Manno et al. 2018;
    Bergen et al. 2020). A vanishing field therefore projects to zero.

    Parameters
    ----------
    x
        Positions, ``(n_cells, n_dims)``.
    v
        Field, ``(n_cells, n_dims)``; only its direction counts. A row that is not finite is a cell without one.
    embedding
        Positions in the embedding, ``(n_cells, 2)``.
    push
        Positions after transport, ``(n_cells, n_dims)``, finite where `v` is. If None, cells step to the cells around
        them only, the choice for a field of small steps such as RNA velocity.
    n_neighbors
        Number of cells taken around a position.
    sharpness
        Inverse temperature ``s`` of the softmax over the cosines.

    Returns
    -------
    Array ``(n_cells, 2)`` float64, NaN for cells without a field.
    """
    x, v, embedding = (np.asarray(array, dtype=np.float64) for array in (x, v, embedding))
    index = _neighbor_index(x, n_neighbors)
    projected = np.full((len(x), 2), np.nan)
    for block in _blocks(np.flatnonzero(np.isfinite(v).all(axis=1))):
        candidates = index.kneighbors(x[block], n_neighbors=n_neighbors + 1, return_distance=False)  # itself too
        if push is not None:
            ahead = np.asarray(push[block], dtype=np.float64)
            ahead = index.kneighbors(ahead, return_distance=False)
            candidates = np.sort(np.concatenate([candidates, ahead], axis=1), axis=1)
        valid = candidates != block[:, None]
        valid[:, 1:] &= candidates[:, 1:] != candidates[:, :-1]
        steps = x[candidates] - x[block][:, None]
        lengths = np.linalg.norm(steps, axis=2) * np.linalg.norm(v[block], axis=1)[:, None]
        cosines = np.einsum("nkd,nd->nk", steps, v[block]) / np.where(lengths > 0, lengths, 1.0)
        # Less the largest cosine, which cancels in the weights: no sharpness underflows.
        peak = np.max(cosines, axis=1, keepdims=True, where=valid, initial=-1.0)
        weights = np.where(valid, np.exp(sharpness * np.minimum(cosines - peak, 0.0)), 0.0)
        excess = weights / weights.sum(axis=1, keepdims=True) - valid / valid.sum(axis=1, keepdims=True)
        projected[block] = np.einsum("nk,nkd->nd", excess, embedding[candidates] - embedding[block][:, None])
    return projected


def project_push(x: np.ndarray, push: np.ndarray, embedding: np.ndarray, *, n_neighbors: int = 30) -> np.ndarray:
    """Project displacements to an embedding by placing both of their ends in it.

    The start of a displacement is placed like its end, so that the smoothing cancels and a map that moves nothing
    projects to zero.

    Parameters
    ----------
    x
        Positions, ``(n_cells, n_dims)``.
    push
        Positions after transport, ``(n_cells, n_dims)``. A row that is not finite is a cell that is not transported.
    embedding
        Positions in the embedding, ``(n_cells, 2)``.
    n_neighbors
        Number of cells averaged to place a point.

    Returns
    -------
    Array ``(n_cells, 2)`` float64, NaN for cells that are not transported.
    """
    x, push = np.asarray(x), np.asarray(push)
    source = np.flatnonzero(np.isfinite(push).all(axis=1))
    start, end = (place_points(points[source], x, embedding, n_neighbors=n_neighbors) for points in (x, push))
    projected = np.full((len(x), 2), np.nan)
    projected[source] = end - start
    return projected


def place_points(points: np.ndarray, x: np.ndarray, embedding: np.ndarray, *, n_neighbors: int = 30) -> np.ndarray:
    """Place points of the representation in an embedding that is known for the cells only.

    A point is placed at the Gaussian-kernel average of the embedding of the `n_neighbors` cells nearest to it, the
    bandwidth being their mean distance.

    Parameters
    ----------
    points
        Finite positions, ``(n_points, n_dims)``.
    x
        Positions of the cells, ``(n_cells, n_dims)``.
    embedding
        Positions of the cells in the embedding, ``(n_cells, 2)``.
    n_neighbors
        Number of cells averaged to place a point.

    Returns
    -------
    Array ``(n_points, 2)`` float64.
    """
    points, x, embedding = (np.asarray(array, dtype=np.float64) for array in (points, x, embedding))
    index = _neighbor_index(x, n_neighbors)
    placed = np.empty((len(points), 2))
    for block in _blocks(np.arange(len(points))):
        distances, cells = index.kneighbors(points[block])
        bandwidth = np.maximum(distances.mean(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        # Squared distances are taken less the smallest, which cancels in the weights: far points do not underflow.
        scaled = (distances / bandwidth) ** 2
        weights = np.exp(-0.5 * (scaled - scaled[:, :1]))
        placed[block] = np.einsum("nk,nkd->nd", weights / weights.sum(axis=1, keepdims=True), embedding[cells])
    return placed


def velocity_grid(
    embedding: np.ndarray, v_emb: np.ndarray, *, n_grid: int = 40, smooth: float = 1.0, min_mass: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average a projected field on a regular grid with a Gaussian kernel.

    Parameters
    ----------
    embedding
        Positions in the embedding, ``(n_cells, 2)``.
    v_emb
        Projected field, ``(n_cells, 2)``. Rows that are not finite do not contribute.
    n_grid
        Number of grid points along each axis.
    smooth
        Standard deviation of the kernel in grid spacings, along each axis.
    min_mass
        Grid points with a smaller sum of kernel weights are left empty. A cell on the grid point weighs 1, so the
        unit is cells.

    Returns
    -------
    Grid coordinates ``xs`` and ``ys``, each ``(n_grid,)``, and the two components ``u`` and ``v`` of the field, each
    ``(n_grid, n_grid)`` with one row per ``ys``; float64, NaN where the grid is empty.
    """
    embedding, v_emb = (np.asarray(array, dtype=np.float64) for array in (embedding, v_emb))
    low, high = embedding.min(axis=0), embedding.max(axis=0)
    margin = 0.02 * (high - low)
    grid = np.linspace(low - margin, high + margin, n_grid)
    bandwidth = smooth * (grid[1] - grid[0])

    source = np.isfinite(v_emb).all(axis=1)
    # The kernel factorises over the axes, which makes the sums over cells matrix products and the average exact.
    kernel_x, kernel_y = np.exp(-0.5 * ((grid[:, None] - embedding[source]) / bandwidth) ** 2).transpose(2, 0, 1)
    mass = kernel_y @ kernel_x.T
    filled = (mass >= min_mass) & (mass > 0)
    u, v = (
        np.where(filled, (kernel_y * component) @ kernel_x.T / np.where(filled, mass, 1.0), np.nan)
        for component in v_emb[source].T
    )
    return grid[:, 0], grid[:, 1], u, v


def _neighbor_index(x: np.ndarray, n_neighbors: int):
    from sklearn.neighbors import NearestNeighbors

    if not 1 <= n_neighbors < len(x):
        raise ValueError(
            f"Expected `n_neighbors` to be positive and smaller than the number of cells, {len(x)}, "
            f"found {n_neighbors}. Choose another `n_neighbors`."
        )
    return NearestNeighbors(n_neighbors=n_neighbors).fit(x)


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
