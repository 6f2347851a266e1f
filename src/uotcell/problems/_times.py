"""Time as users write it: numbers, dates, ordered categories, or strings with one number such as "E14.5"."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
DAY = pd.Timedelta(days=1)
JOINED = re.compile(r"[A-Za-z_]-[\d.]")


def parse_times(column: pd.Series) -> dict:
    """Map every label of a time column to a number.

    Parameters
    ----------
    column
        ``.obs`` column: numbers, strings holding one number between a prefix and suffix they all share (``"E14.5"``,
        ``"48h"``), or an ordered categorical. A hyphen before the number is a minus if some label has none
        (``"D-2"``, ``"D0"``). Dates count in days since the first of them, durations in days. Ordered categories that
        are none of these count 0, 1, 2, ...

    Returns
    -------
    Labels in order of time, each with its number; categories no cell has are left out.

    Raises
    ------
    ValueError
        If a label is missing, or labels are not times.
    """
    name = column.name
    if column.isna().any():
        raise ValueError(
            f"Expected every cell to have a time, found {int(column.isna().sum())} missing in `adata.obs[{name!r}]`. "
            "Subset `adata` to the cells with a time."
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = set(column.unique())
        labels = [label for label in column.cat.categories if label in present]
        if column.cat.ordered:
            times = _numbers(labels)
            in_order = times is not None and all(np.diff(list(times.values())) > 0)
            return times if in_order else {label: float(rank) for rank, label in enumerate(labels)}
    else:
        labels = column.unique().tolist()
    times = _numbers(labels)
    if times is None or len(set(times.values())) < len(labels):
        raise ValueError(
            f"Expected `adata.obs[{name!r}]` to hold finite numbers, dates, ordered categories, or strings with one "
            f"number in the same place and no hyphen before it, such as 'E14.5', found {labels[:5]}. Make it an "
            f"ordered categorical: `adata.obs[{name!r}] = pd.Categorical(adata.obs[{name!r}], categories=[...], "
            "ordered=True)`."
        )
    return dict(sorted(times.items(), key=lambda item: item[1]))


def time_codes(column: pd.Series, times: dict) -> np.ndarray:
    """Return the position of every cell's label among `times`, shape ``(n_cells,)``, int64."""
    return column.map({label: code for code, label in enumerate(times)}).to_numpy(dtype=np.int64)


def _numbers(labels: list) -> dict | None:
    """Every label's number, or None if some label is not a time."""
    if all(isinstance(label, (int, float, np.number)) and not isinstance(label, (bool, np.bool_)) for label in labels):
        return {label: float(label) for label in labels} if np.isfinite(np.asarray(labels, float)).all() else None
    if all(isinstance(label, pd.Timestamp) for label in labels):
        return {label: (label - min(labels)) / DAY for label in labels}
    if all(isinstance(label, pd.Timedelta) for label in labels):
        return {label: label / DAY for label in labels}
    if not all(isinstance(label, str) for label in labels):
        return None
    found = [NUMBER.findall(label) for label in labels]
    units = {NUMBER.sub("#", label) for label in labels}
    if len(units) != 1 or any(len(numbers) != 1 for numbers in found):
        return None
    if all(JOINED.search(label) for label in labels):
        # "day-10" and "day-11": a hyphen or a minus? Read wrongly, time would run backwards.
        return None
    return {label: float(numbers[0]) for label, numbers in zip(labels, found, strict=True)}
