"""The optimal map between Gaussians, from covariances of few cells."""

from __future__ import annotations

import numpy as np

# However many cells there are, features can be redundant; the map and its inverse stay bounded with this much.
LEAST_SHRINKAGE = 0.01


def shrunk_covariance(covariance: np.ndarray, n_cells: float) -> np.ndarray:
    """Move a sample covariance towards a multiple of the identity, the further the fewer cells it is of.

    Oracle approximating shrinkage (Chen et al. 2010, equation 23), which for normal cells comes close to the least
    mean squared error, and never less than one part in a hundred.

    Parameters
    ----------
    covariance
        Covariance of a sample about its mean, divided by its size, shape ``(d, d)``.
    n_cells
        Size of the sample; of weighted cells, the effective one.

    Returns
    -------
    A positive definite matrix of the same trace, unless all is zero.
    """
    d = len(covariance)
    level, mean_square = np.trace(covariance) / d, np.mean(covariance**2)
    excess = (n_cells + 1) * (mean_square - level**2 / d)
    weight = min(1.0, (mean_square + level**2) / excess) if excess > 0 else 1.0
    weight = max(LEAST_SHRINKAGE, weight)
    return (1 - weight) * covariance + weight * level * np.eye(d)


def bures_map(source_cov: np.ndarray, target_cov: np.ndarray) -> np.ndarray:
    """Optimal linear map between two centred Gaussians, ``S^-½ (S^½ T S^½)^½ S^-½``.

    Parameters
    ----------
    source_cov, target_cov
        Positive definite covariances S and T, shapes ``(d, d)``.

    Returns
    -------
    A symmetric positive definite matrix, ``(d, d)``. Its inverse is the map from target to source.
    """
    root, inverse_root = symmetric_power(source_cov, 0.5), symmetric_power(source_cov, -0.5)
    return inverse_root @ symmetric_power(root @ target_cov @ root, 0.5) @ inverse_root


def symmetric_power(matrix: np.ndarray, power: float) -> np.ndarray:
    """Power of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, np.finfo(float).tiny) ** power) @ vectors.T
