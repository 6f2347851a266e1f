"""How far two weighted populations are apart."""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import ArrayLike

from uotcell._errors import ConvergenceError
from uotcell.ot._divergence import sinkhorn_divergence as divergence
from uotcell.ot._inputs import as_mass, as_points

_compiled_divergence = jax.jit(divergence)


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
    shift = x.mean(axis=0)
    points = ((p - shift).astype(np.float32) for p in (x, y))
    masses = (as_mass(m, name, len(p)).astype(np.float32) for m, name, p in ((a, "a", x), (b, "b", y)))
    value, converged = _compiled_divergence(*points, *masses, epsilon)
    if not (converged and np.isfinite(value)):
        raise ConvergenceError(f"The Sinkhorn divergence with epsilon={epsilon:g} did not converge. Raise `epsilon`.")
    return float(value)


def effective_sample_size(weights: ArrayLike) -> float:
    """Return how many equally weighted cells carry as much information: ``(Σw)² / Σw²`` (Kish 1965).

    Parameters
    ----------
    weights
        Masses, shape ``(n,)``.

    Returns
    -------
    A number of cells, from 1 to ``n``.
    """
    weights = np.asarray(weights, np.float64)
    return float(weights.sum() ** 2 / (weights**2).sum())
