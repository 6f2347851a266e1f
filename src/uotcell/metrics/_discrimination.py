"""Whether a prediction is closer to its own condition than to the others."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist

from uotcell.ot._inputs import as_points

_METRICS = ("cityblock", "correlation", "cosine", "euclidean")


def discrimination_rank(
    predicted: ArrayLike,
    observed: ArrayLike,
    *,
    metric: Literal["cityblock", "correlation", "cosine", "euclidean"] = "euclidean",
) -> np.ndarray:
    """Rank of a condition's own observation among all observations, by distance to the prediction.

    A model that predicts the same for all conditions may be close to each of them; its mean rank is 0.5. Average over
    conditions for one number. This is one minus the perturbation discrimination score of cell-eval (Adduri et al. 2025)
    up to its division by K. The rank of PerturBench (Wu et al. 2024) looks the other way, for the own prediction among
    all predictions by distance to the observation: for that swap the two arguments.

    Parameters
    ----------
    predicted, observed
        Mean of the predicted and of the observed cells of K conditions in the same order, shapes ``(K, d)``; for
        ``cosine``, minus the mean of the control.
    metric
        Distance, one of those of :func:`scipy.spatial.distance.cdist`.

    Returns
    -------
    For each condition, ``(closer + ½ equally close others) / (K − 1)``, shape ``(K,)``: 0 = its own observation is
    closest, 1 = all others are closer, 0.5 = chance.

    Raises
    ------
    ValueError
        If the arrays are not of one shape, not finite or of fewer than two conditions, the metric is unknown, or a
        distance is undefined, as the cosine with a zero vector is.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.discrimination_rank([[0.1], [1.9], [0.6]], [[0.0], [1.0], [2.0]])
    array([0. , 0.5, 1. ])
    """
    predicted = as_points(predicted, "predicted").astype(np.float64)
    observed = as_points(observed, "observed").astype(np.float64)
    if predicted.shape != observed.shape or len(observed) < 2:
        raise ValueError(
            "Expected `predicted` and `observed` to have one shape with a row for each of at least two conditions, "
            f"found {predicted.shape} and {observed.shape}. Average the cells of each condition first."
        )
    if metric not in _METRICS:
        raise ValueError(f"Expected `metric` to be one of {list(_METRICS)}, found {metric!r}.")
    with np.errstate(invalid="ignore"):
        distances = cdist(predicted, observed, metric)
    if not np.isfinite(distances).all():
        raise ValueError(
            f"Expected every {metric} distance to be defined, found NaN for a row without length. Remove rows that "
            "are zero or constant, or use `metric='euclidean'`."
        )
    own = np.diag(distances)[:, None]
    closer, equal = (distances < own).sum(axis=1), (distances == own).sum(axis=1) - 1
    return (closer + equal / 2) / (len(own) - 1)
