"""Comparisons over conditions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from uotcell.benchmark._scores import CEILING, LARGER_IS_BETTER

MEAN_SHIFT = "mean shift"
# Where mean shift and ceiling are closer than this share of the score, what lies between them is noise.
MIN_GAP = 0.1
EFFECTS = ("small", "medium", "large")
N_BOOTSTRAP = 2_000


class Interval(NamedTuple):
    """A mean over conditions, its 95 % interval, and how many conditions there were."""

    mean: float
    low: float
    high: float
    n: int


class Comparison(NamedTuple):
    """How one family does against another: conditions won, median relative change, and p of Wilcoxon's test."""

    wins: int
    n: int
    change: float
    p_value: float


def by_condition(families: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean of a measure over seeds: a row per (condition, group), a column per family.

    Parameters
    ----------
    families
        Rows of one data set and weighting.
    metric
        Column of the measure.

    Returns
    -------
    The table; NaN where a family has no score under any seed.
    """
    return families.groupby(["condition", "group", "family"])[metric].mean().unstack("family")


def scaled(values: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Scores between the mean shift, 0, and the ceiling, 1.

    Parameters
    ----------
    values
        As :func:`by_condition` returns them.
    metric
        Name of the measure.

    Returns
    -------
    The same table without the conditions in which the ceiling is no better than the mean shift by at least a tenth.
    """
    gap = values[CEILING] - values[MEAN_SHIFT]
    improvement = gap if metric in LARGER_IS_BETTER else -gap
    wide = improvement > MIN_GAP * values[MEAN_SHIFT].abs()
    return values[wide].sub(values.loc[wide, MEAN_SHIFT], axis=0).div(gap[wide], axis=0)


def bootstrap_mean(values: pd.Series | np.ndarray, *, rng: int = 0) -> Interval:
    """Mean over conditions with its percentile bootstrap interval; NaN are left out.

    Parameters
    ----------
    values
        One number per condition.
    rng
        Seed.

    Returns
    -------
    The interval.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    draws = np.random.default_rng(rng).integers(len(values), size=(N_BOOTSTRAP, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def compare(ours: pd.Series, theirs: pd.Series, metric: str) -> Comparison:
    """Compare two families over the conditions that both have.

    Parameters
    ----------
    ours, theirs
        Score by condition.
    metric
        Name of the measure.

    Returns
    -------
    Conditions in which ours is better, conditions, the median of (ours − theirs) / |theirs|, and the two-sided p of
    Wilcoxon's signed-rank test (NaN where nothing differs).
    """
    both = pd.concat([ours, theirs], axis=1, keys=["ours", "theirs"]).dropna()
    difference = (both["ours"] - both["theirs"]).to_numpy()
    better = difference > 0 if metric in LARGER_IS_BETTER else difference < 0
    change = np.median(difference / both["theirs"].abs()) if len(both) else np.nan
    differing = difference[difference != 0]
    p_value = float(wilcoxon(differing).pvalue) if len(differing) else np.nan
    return Comparison(int(better.sum()), len(both), float(change), p_value)


def difference_by_seed(families: pd.DataFrame, metric: str, ours: str, theirs: str) -> pd.Series:
    """Mean difference of two families over the conditions that both have, by seed.

    Parameters
    ----------
    families
        Rows of one data set and weighting.
    metric
        Column of the measure.
    ours, theirs
        The families.

    Returns
    -------
    Ours minus theirs, a number per seed.
    """
    values = families.pivot(index=["seed", "condition", "group"], columns="family", values=metric)
    return (values[ours] - values[theirs]).groupby("seed").mean().dropna()


def effect_sizes(values: pd.DataFrame) -> pd.Series:
    """``"small"``, ``"medium"`` or ``"large"`` by condition: thirds of the identity's score over the ceiling's.

    Parameters
    ----------
    values
        Sinkhorn divergences as :func:`by_condition` returns them.

    Returns
    -------
    Names by condition. With fewer than three conditions all are ``"medium"``.
    """
    if len(values) < len(EFFECTS):
        return pd.Series(EFFECTS[1], index=values.index)
    order = (values["identity"] / values[CEILING]).sort_values(kind="stable").index
    named = zip(EFFECTS, np.array_split(np.arange(len(order)), len(EFFECTS)), strict=True)
    return pd.concat([pd.Series(name, index=order[places]) for name, places in named]).reindex(values.index)
