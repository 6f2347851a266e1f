"""The linear map from a representation to an embedding that explains most of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class LinearMap(NamedTuple):
    """Linear part ``(n_dims, 2)`` of an affine map to an embedding, and its adjusted R² over the cells."""

    matrix: np.ndarray
    r_squared: float

    def project(self, v: np.ndarray) -> np.ndarray:
        """Image of a field ``(n_cells, n_dims)``, float64 ``(n_cells, 2)``, NaN for rows that are not finite."""
        v = np.asarray(v, dtype=np.float64)
        finite = np.isfinite(v).all(axis=1)
        projected = np.full((len(v), 2), np.nan)
        projected[finite] = v[finite] @ self.matrix
        return projected


def fit_linear_map(x: np.ndarray, embedding: np.ndarray) -> LinearMap:
    r"""Fit ``embedding ≈ x @ matrix + offset`` to the cells by least squares.

    Parameters
    ----------
    x
        Positions, ``(n_cells, n_dims)``.
    embedding
        Positions in the embedding, ``(n_cells, 2)``.

    Returns
    -------
    The linear part and the adjusted R²,

    .. math:: 1 - \frac{\sum_i \lVert r_i \rVert^2}{\sum_i \lVert z_i - \bar z \rVert^2} \, \frac{n - 1}{n - d - 1} ,

    over both axes together, with residuals ``r``: a rotation of the embedding does not change it, and neither do, in
    the mean, dimensions that have nothing to do with the embedding.

    Raises
    ------
    ValueError
        If there are too few cells for the dimensions, so that any embedding would be linear.
    """
    x, embedding = (np.asarray(array, dtype=np.float64) for array in (x, embedding))
    n_cells, n_dims = x.shape
    freedom = n_cells - n_dims - 1
    if freedom < 1:
        raise ValueError(
            f"Expected more cells than dimensions for `projection`='linear', found {n_cells} cells in {n_dims} "
            "dimensions. Use `projection='neighbors'`."
        )
    centred, target = x - x.mean(axis=0), embedding - embedding.mean(axis=0)
    matrix, *_ = np.linalg.lstsq(centred, target, rcond=None)
    total = np.sum(target**2)
    unexplained = np.sum((target - centred @ matrix) ** 2) / total if total > 0 else 0.0
    return LinearMap(matrix, 1 - unexplained * (n_cells - 1) / freedom)
