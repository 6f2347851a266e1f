"""Days until the next time point."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from anndata import AnnData

from uotcell.problems._times import NUMBER, parse_times

# Words for other units than days, as suffix of labels or name of the column, and what `days_per_unit` is then.
_UNITS = {
    "1 / 24": {"h", "hr", "hrs", "hour", "hours", "hpf", "hpi", "hpt"},
    "1 / 1440": {"min", "mins", "minute", "minutes"},
    "7": {"w", "wk", "wks", "week", "weeks"},
}


def days_to_next(
    adata: AnnData, time_key: str | None, days: float | None, days_per_unit: float | None
) -> tuple[np.ndarray, dict]:
    """Return how many days lie between every cell and the next time point.

    Parameters
    ----------
    adata
        Annotated data.
    time_key
        Column of ``.obs`` with times.
    days
        The same number for all cells, instead of times.
    days_per_unit
        Days in one unit of the column; 1 if None.

    Returns
    -------
    Days ``(n_cells,)``, and days by time point in order of time, empty if they were given. The last time point has the
    days of the one before.

    Raises
    ------
    KeyError, ValueError
        If there are no times, or they are no numbers of a known unit.
    """
    if (time_key is None) == (days is None):
        found = "neither" if days is None else "both"
        raise ValueError(f"Expected either `time_key` or `days`, found {found}. Give one of them.")
    for name, value in (("days", days), ("days_per_unit", days_per_unit)):
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"Expected `{name}` to be a positive number, found {value!r}.")
    if days is not None:
        if days_per_unit is not None:
            raise ValueError(f"Expected `days_per_unit` only with `time_key`, found {days_per_unit!r} with `days`.")
        return np.full(adata.n_obs, float(days)), {}
    if time_key not in adata.obs:
        raise KeyError(f"Expected `time_key` to be a column of `adata.obs` {list(adata.obs)}, found {time_key!r}.")
    times = _numbers(adata.obs[time_key])
    if len(times) < 2:
        raise ValueError(f"Expected at least two time points, found {list(times)}. Give `days` until the target.")
    if days_per_unit is None:
        _check_unit(time_key, list(times))
        days_per_unit = 1.0
    gaps = np.diff(list(times.values())) * days_per_unit
    by_label = dict(zip(times, [*gaps.tolist(), float(gaps[-1])], strict=True))
    return adata.obs[time_key].map(by_label).to_numpy(dtype=np.float64), by_label


def _numbers(column: pd.Series) -> dict:
    """Map labels to times; ordered categories without numbers have an order but no distance."""
    times = parse_times(column)
    labels = list(times)
    try:
        numbers = parse_times(pd.Series(labels, name=column.name, dtype=object))
    except ValueError:
        numbers = None
    if numbers != times:
        raise ValueError(
            f"Expected `adata.obs[{column.name!r}]` to hold numbers, found ordered categories {labels[:5]}, which do "
            "not say how far apart they are. Give `days` until the target, or a column of numbers."
        )
    return times


def _check_unit(time_key: str, labels: list) -> None:
    """Raise if times are in hours or weeks by name."""
    words = {
        word.lower() for text in [time_key, *map(str, labels)] for word in re.split(r"[\W_]+", NUMBER.sub(" ", text))
    }
    for days_per_unit, unit in _UNITS.items():
        if found := sorted(words & unit):
            raise ValueError(
                f"Expected days in `adata.obs[{time_key!r}]`, found {found[0]!r} in its name or labels. Rates are per "
                f"day: give `days_per_unit={days_per_unit}`, or `days_per_unit=1` if these are days."
            )
