"""The table that plots of transitions draw, from a DataFrame or from AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ._cells import Palette, category_colors

if TYPE_CHECKING:
    from anndata import AnnData


class TransitionTable(NamedTuple):
    """Mass from source types, the rows, to target types, the columns.

    ``values`` ``(n_rows, n_columns)`` float64, NaN in the rows of types without cells; ``normalized``, whether rows sum
    to one; ``groupby``, what the types are, empty if not known; ``colors`` by type.
    """

    values: np.ndarray
    rows: list[str]
    columns: list[str]
    normalized: bool
    groupby: str
    colors: dict[str, str]


def read_transitions(table: pd.DataFrame | AnnData, *, key: str, palette: Palette) -> TransitionTable:
    """Read and check a table, given as a DataFrame or as the slot ``.uns["<key>_transitions"]``.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there is no table, or it does not hold masses.
    """
    from anndata import AnnData

    if isinstance(table, pd.DataFrame):
        values, rows, columns, groupby = table.to_numpy(), table.index, table.columns, ""
    elif isinstance(table, AnnData):
        values, rows, columns, groupby = _slot(table, f"{key}_transitions", key)
    else:
        raise TypeError(
            f"Expected `table` to be a DataFrame or an AnnData, found {type(table).__name__}. Give the table of "
            "`uc.tl.transitions(adata, ...)`, or `adata` after it."
        )
    rows, columns = [str(name) for name in rows], [str(name) for name in columns]
    values = _checked(values, rows, columns)
    names = list(dict.fromkeys([*rows, *columns]))
    stored = None
    if groupby and groupby in table.obs:
        known = [str(name) for name in table.obs[groupby].astype("category").cat.categories]
        # Colours belong to the categories of all cells, of which the table may hold a part.
        if set(names) <= set(known):
            names, stored = known, table.uns.get(f"{groupby}_colors")
    sums = np.nansum(values, axis=1)
    return TransitionTable(
        values=values,
        rows=rows,
        columns=columns,
        normalized=bool(np.allclose(sums[sums > 0], 1, atol=1e-3)),
        groupby=groupby,
        colors=category_colors(names, stored=stored, palette=palette),
    )


def _slot(adata: AnnData, name: str, key: str) -> tuple:
    """Values, rows, columns and what they are, from ``.uns``."""
    if name not in adata.uns:
        raise KeyError(
            f"Expected `adata.uns` to hold {name!r}, found {sorted(adata.uns)}. "
            f"Run `uc.tl.transitions(adata, ..., key={key!r})` first."
        )
    slot = adata.uns[name]
    return slot["table"], slot["rows"], slot["columns"], str(slot["groupby"])


def _checked(values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    """Masses as float64."""
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected `table` to hold numbers, found dtype {np.asarray(values).dtype}.") from error
    if values.shape != (len(rows), len(columns)) or not values.size:
        raise ValueError(
            f"Expected `table` to have the shape of its names, {(len(rows), len(columns))}, found {values.shape}."
        )
    for name, labels in (("rows", rows), ("columns", columns)):
        if len(set(labels)) < len(labels):
            raise ValueError(f"Expected `table` to have every type once in its {name}, found {list(labels)}.")
    low, total = np.nanmin(values, initial=0.0), np.nansum(values)
    if low < 0 or not 0 < total < np.inf:
        raise ValueError(
            f"Expected `table` to hold masses, which are not negative and not all zero, found a sum of {total:.3g} and "
            f"a smallest value of {low:.3g}."
        )
    return values
