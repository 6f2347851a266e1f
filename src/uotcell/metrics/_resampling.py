"""How far a weighted mean would vary had other cells, or other clones, been sampled."""

from __future__ import annotations

import numpy as np


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean, NaN where there is no weight."""
    total = weights.sum()
    return float(values @ weights / total) if total > 0 else float("nan")


def bootstrap_means(
    values: np.ndarray, weights: np.ndarray, *, n_draws: int, generator: np.random.Generator
) -> np.ndarray:
    """Weighted means of units drawn with replacement.

    Parameters
    ----------
    values, weights
        Of the units, such as cells, shapes ``(n,)``.
    n_draws
        Number of samples, each of ``n`` units.
    generator
        Source of randomness; equal states draw equal units, whatever the values.

    Returns
    -------
    Means, shape ``(n_draws,)``; NaN where only units without weight were drawn.
    """
    means = np.full(n_draws, np.nan)
    for draw in range(n_draws):
        units = generator.integers(len(values), size=len(values))
        means[draw] = weighted_mean(values[units], weights[units])
    return means


def percentile_interval(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    """Central interval of the draws that are numbers."""
    draws = draws[np.isfinite(draws)]
    if len(draws) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
