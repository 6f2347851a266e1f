"""Maps that need no network: what a method has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]
# Covariances of fewer cells than dimensions are singular: both are moved this far to a multiple of the identity.
SHRINKAGE = 0.01


def identity(x: np.ndarray, y: np.ndarray) -> Map:
    """Leave every cell where it is.

    Parameters
    ----------
    x, y
        Training controls and treated cells, shapes ``(n, d)`` and ``(m, d)``.

    Returns
    -------
    The map of cells ``(k, d)``.
    """
    return lambda cells: np.asarray(cells)


def mean_shift(x: np.ndarray, y: np.ndarray) -> Map:
    """Move every cell by the difference of the means; arguments as in :func:`identity`."""
    shift = y.mean(axis=0, dtype=np.float64) - x.mean(axis=0, dtype=np.float64)
    return lambda cells: cells + shift


def diagonal_affine(x: np.ndarray, y: np.ndarray) -> Map:
    """Match mean and standard deviation of every feature; arguments as in :func:`identity`.

    It is the optimal map between Gaussians with independent features.
    """
    (mean_x, std_x), (mean_y, std_y) = ((p.mean(axis=0), p.std(axis=0)) for p in (x.astype(float), y.astype(float)))
    scale = np.divide(std_y, std_x, out=np.ones_like(std_y), where=std_x > 0)
    return lambda cells: mean_y + scale * (cells - mean_x)


def gaussian(x: np.ndarray, y: np.ndarray, *, shrinkage: float = SHRINKAGE) -> Map:
    """Optimal map between the Gaussians with the moments of both sides; arguments as in :func:`identity`.

    ``T(x) = m_y + A (x − m_x)`` with ``A = S_x^-½ (S_x^½ S_y S_x^½)^½ S_x^-½``. Both covariances are shrunk.
    """
    (mean_x, cov_x), (mean_y, cov_y) = (_moments(np.asarray(p, np.float64), shrinkage) for p in (x, y))
    root, inverse_root = _power(cov_x, 0.5), _power(cov_x, -0.5)
    linear = inverse_root @ _power(root @ cov_y @ root, 0.5) @ inverse_root
    return lambda cells: mean_y + (cells - mean_x) @ linear


def _moments(points: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    covariance = np.cov(points.T, bias=True).reshape(points.shape[1], -1)
    isotropic = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return points.mean(axis=0), (1 - shrinkage) * covariance + shrinkage * isotropic


def _power(matrix: np.ndarray, power: float) -> np.ndarray:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, np.finfo(float).tiny) ** power) @ vectors.T


LINEAR_MAPS = {"identity": identity, "mean_shift": mean_shift, "diagonal_affine": diagonal_affine, "gaussian": gaussian}
