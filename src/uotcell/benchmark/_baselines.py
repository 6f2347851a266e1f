"""Maps that need no network: what a method has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from uotcell.ot._gaussian import bures_map, shrunk_covariance

Map = Callable[[np.ndarray], np.ndarray]


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


def gaussian(x: np.ndarray, y: np.ndarray) -> Map:
    """Optimal map between the Gaussians with the moments of both sides; arguments as in :func:`identity`.

    Both covariances are shrunk according to the number of cells, as for the map that an ICNN starts from.
    """
    (mean_x, cov_x), (mean_y, cov_y) = (_moments(np.asarray(p, np.float64)) for p in (x, y))
    linear = bures_map(cov_x, cov_y)
    return lambda cells: mean_y + (cells - mean_x) @ linear


def _moments(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    covariance = np.cov(points.T, bias=True).reshape(points.shape[1], -1)
    return points.mean(axis=0), shrunk_covariance(covariance, len(points))


LINEAR_MAPS = {"identity": identity, "mean_shift": mean_shift, "diagonal_affine": diagonal_affine, "gaussian": gaussian}
