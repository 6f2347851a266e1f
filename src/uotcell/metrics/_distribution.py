"""How far two weighted populations are apart."""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import ArrayLike

from uotcell._errors import ConvergenceError
from uotcell.metrics._inputs import as_populations, check_pairs
from uotcell.ot._divergence import sinkhorn_divergence as divergence
from uotcell.ot._inputs import as_float32, as_mass, as_points
from uotcell.ot._settings import check_positive

_compiled_divergence = jax.jit(divergence)
# Bytes per pair of cells, within and between the sides, that the compiled program takes.
_PAIR_BYTES = 10


def sinkhorn_divergence(
    x: ArrayLike, y: ArrayLike, *, epsilon: float, a: ArrayLike | None = None, b: ArrayLike | None = None
) -> float:
    """Balanced Sinkhorn divergence of the squared Euclidean cost (Feydy et al. 2019).

    Masses are normalised and ε is absolute, so that fits of different τ are measured by one yardstick. The smaller ε,
    the more the value is the noise of a finite sample: compare with two halves of one population.

    Parameters
    ----------
    x, y
        Cells, shapes ``(n, d)`` and ``(m, d)``.
    epsilon
        Entropic regularisation in units of the squared distance.
    a, b
        Masses, uniform by default.

    Returns
    -------
    The divergence in units of the squared distance, zero for equal measures.

    Raises
    ------
    ValueError
        If ε is not positive, or cells or masses do not fit together.
    MemoryError
        If the costs of all pairs of cells do not fit into free memory.
    uotcell.ConvergenceError
        If one of the three problems did not converge.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x = np.random.default_rng(0).normal(size=(100, 2))
    >>> round(uc.metrics.sinkhorn_divergence(x, x + [3.0, 0.0], epsilon=0.1), 1)
    9.0
    """
    x = as_points(x, "x")
    y = as_points(y, "y", dim=x.shape[1])
    n_pairs = len(x) ** 2 + len(x) * len(y) + len(y) ** 2
    check_pairs(_PAIR_BYTES * n_pairs, f"the costs within and between {len(x):,} and {len(y):,} cells")
    check_positive("epsilon", epsilon)
    # In units in which ε is one: float32 holds neither very small nor very large squares.
    unit, shift = np.sqrt(epsilon), x.mean(axis=0, dtype=np.float64)
    points = as_float32([(p - shift) / unit for p in (x, y)], 0.0)
    masses = (as_mass(m, name, len(p)).astype(np.float32) for m, name, p in ((a, "a", x), (b, "b", y)))
    value, converged = _compiled_divergence(*points, *masses, 1.0)
    if not (converged and np.isfinite(value)):
        raise ConvergenceError(
            f"The Sinkhorn divergence with epsilon={epsilon:g} did not converge. Raise `epsilon`, or remove far cells."
        )
    return epsilon * float(value)


def wasserstein_1d(x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None) -> np.ndarray:
    """1-Wasserstein distance of every feature by itself, ``∫ |F(t) − G(t)| dt`` of its two distribution functions.

    Parameters
    ----------
    x, y
        Predicted and observed cells, shapes ``(n, d)`` and ``(m, d)``.
    a, b
        Their masses, uniform by default. Only their ratios count.

    Returns
    -------
    Distances in the units of each feature, shape ``(d,)``.

    Raises
    ------
    ValueError
        If cells or masses are empty, not finite, or do not fit together.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.wasserstein_1d([[0.0, 1.0], [2.0, 1.0]], [[3.0, 1.0]])
    array([2., 0.])
    """
    x, y, a, b = as_populations(x, y, a, b)
    values = np.concatenate([x, y])
    order = np.argsort(values, axis=0)
    difference = np.cumsum(np.concatenate([a, -b])[order], axis=0)[:-1]
    return (np.abs(difference) * np.diff(np.take_along_axis(values, order, axis=0), axis=0)).sum(axis=0)


def effective_sample_size(weights: ArrayLike) -> float:
    """Return how many equally weighted cells carry as much information: ``(Σw)² / Σw²`` (Kish 1965).

    Parameters
    ----------
    weights
        Masses, shape ``(n,)``.

    Returns
    -------
    A number of cells, from 1 to ``n``.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.effective_sample_size([1, 1, 1, 1]), uc.metrics.effective_sample_size([1, 0, 0, 0])
    (4.0, 1.0)
    """
    weights = np.asarray(weights, np.float64)
    return float(weights.sum() ** 2 / (weights**2).sum())
