"""How well predicted cells of a treatment match the observed ones in means, variances and correlations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uotcell.metrics._inputs import as_populations


def drug_signature_error(
    x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None
) -> float:
    """Euclidean distance of the feature means, "L2(DS)" of CellOT (Bunne et al. 2023).

    A drug signature is the mean of the treated cells minus the mean of the control. Predicted and observed signature
    have the control in common, so it cancels in their difference.

    Parameters
    ----------
    x, y
        Predicted and observed treated cells, shapes ``(n, d)`` and ``(m, d)``.
    a, b
        Their masses, uniform by default. Only their ratios count.

    Returns
    -------
    ``‖mean x − mean y‖₂`` in units of the features.

    Raises
    ------
    ValueError
        If cells or masses are empty, not finite, or do not fit together.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.drug_signature_error([[0.0, 0.0], [6.0, 0.0]], [[0.0, 4.0]])
    5.0
    """
    x, y, a, b = as_populations(x, y, a, b)
    return float(np.linalg.norm(a @ x - b @ y))


def mean_rmse(x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None) -> float:
    """Root mean square error of the feature means: :func:`drug_signature_error` over the root of their number.

    Parameters
    ----------
    x, y, a, b
        See :func:`drug_signature_error`.

    Returns
    -------
    ``√(mean over features of (mean x − mean y)²)`` in units of the features.

    Raises
    ------
    ValueError
        As :func:`drug_signature_error`.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.mean_rmse([[1.0, 2.0]], [[3.0, 4.0]])
    2.0
    """
    x, y, a, b = as_populations(x, y, a, b)
    return float(np.sqrt(np.mean((a @ x - b @ y) ** 2)))


def mean_r2(x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None) -> float:
    """Coefficient of determination of the feature means, ``r2_score(mean y, mean x)`` of scikit-learn.

    ``1 − Σ (mean y − mean x)² / Σ (mean y − its average over features)²``. It is not the squared Pearson correlation
    that goes by the same name in scGen (Lotfollahi et al. 2019), which forgives a wrong offset and a wrong scale.

    Parameters
    ----------
    x, y, a, b
        See :func:`drug_signature_error`.

    Returns
    -------
    At most 1, without bound below. NaN if all observed means are equal, as with a single feature.

    Raises
    ------
    ValueError
        As :func:`drug_signature_error`.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.mean_r2([[0.0, 1.0, 3.0]], [[0.0, 1.0, 2.0]])
    0.5
    """
    x, y, a, b = as_populations(x, y, a, b)
    observed = b @ y
    spread = ((observed - observed.mean()) ** 2).sum()
    return float(1 - ((a @ x - observed) ** 2).sum() / spread) if spread > 0 else float("nan")


def variance_error(x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None) -> float:
    """Relative error of the feature variances, ``‖var x − var y‖₂ / ‖var y‖₂``.

    Variances are those of the weighted population (divided by n, not by n − 1). A prediction without spread has 1.

    Parameters
    ----------
    x, y, a, b
        See :func:`drug_signature_error`.

    Returns
    -------
    A number without unit, not negative. NaN if no observed feature varies.

    Raises
    ------
    ValueError
        As :func:`drug_signature_error`.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.variance_error([[0.0], [2.0]], [[1.0], [5.0]])
    0.75
    """
    x, y, a, b = as_populations(x, y, a, b)
    observed = _variances(y, b)
    scale = np.linalg.norm(observed)
    return float(np.linalg.norm(_variances(x, a) - observed) / scale) if scale > 0 else float("nan")


def correlation_error(x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None) -> float:
    """Root mean square difference of the Pearson correlations between features.

    The mean is over all pairs of different features that vary on both sides; a feature that is constant among the
    cells of either side has no correlation and is left out.

    Parameters
    ----------
    x, y, a, b
        See :func:`drug_signature_error`.

    Returns
    -------
    A number in [0, 2]. NaN if fewer than two features vary on both sides.

    Raises
    ------
    ValueError
        As :func:`drug_signature_error`.

    Examples
    --------
    >>> import uotcell as uc
    >>> round(uc.metrics.correlation_error([[0.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]), 6)
    2.0
    """
    x, y, a, b = as_populations(x, y, a, b)
    varying = (_variances(x, a) > 0) & (_variances(y, b) > 0)
    if varying.sum() < 2:
        return float("nan")
    difference = _correlations(x[:, varying], a) - _correlations(y[:, varying], b)
    return float(np.sqrt(np.mean(difference[np.triu_indices(len(difference), k=1)] ** 2)))


def _variances(points: np.ndarray, mass: np.ndarray) -> np.ndarray:
    # The weighted mean of a constant is off by rounding, which would pass for spread.
    varying = np.ptp(points[mass > 0], axis=0) > 0
    return np.where(varying, mass @ (points - mass @ points) ** 2, 0.0)


def _correlations(points: np.ndarray, mass: np.ndarray) -> np.ndarray:
    scores = (points - mass @ points) / np.sqrt(_variances(points, mass))
    return (scores * mass[:, None]).T @ scores
