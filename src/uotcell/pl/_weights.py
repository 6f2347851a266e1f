"""Source weights of a fit, and growth, against the mean of their time point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData


def relative_weights(adata: AnnData, key: str) -> np.ndarray:
    """Return source weights over the mean of their time point, where 1 is the average cell.

    The mean weight of a time point is its transported mass, which differs between pairs and is no growth.

    Parameters
    ----------
    adata
        Annotated data with ``.obs["<key>_source_weight"]``.
    key
        The `key_added` of the fit.

    Returns
    -------
    Array ``(n_cells,)`` float64, NaN where a cell is no source.

    Raises
    ------
    KeyError, ValueError
        If there is no such fit, or no cell has a weight.
    """
    slot = f"{key}_source_weight"
    remedy = f"Run `uc.tl.fit_trajectory(adata, ..., key_added={key!r})` first."
    if slot not in adata.obs:
        raise KeyError(f"Expected `adata.obs` to hold {slot!r}, found {list(adata.obs)}. {remedy}")
    weights = adata.obs[slot].to_numpy(dtype=np.float64)
    if not (weights[np.isfinite(weights)] > 0).any():
        raise ValueError(f"Expected `adata.obs[{slot!r}]` to hold positive weights, found none. {remedy}")
    return over_mean(adata, key, weights)


def over_mean(adata: AnnData, key: str, values: np.ndarray) -> np.ndarray:
    """Divide values ``(n_cells,)`` by the mean of those at the same time point that are finite."""
    time_key = adata.uns.get(key, {}).get("params", {}).get("time_key")
    if time_key is None:  # a fit of another kind, with one pair
        return values / np.nanmean(values)
    if time_key not in adata.obs:
        raise KeyError(
            f"Expected `adata.obs` to hold {time_key!r}, the times of the fit {key!r}, found {list(adata.obs)}. "
            "Put the column back."
        )
    means = pd.Series(values).groupby(adata.obs[time_key].to_numpy()).transform("mean")
    return values / means.to_numpy()


def weight_label(adata: AnnData, key: str) -> str:
    """Say what relative weights are relative to."""
    timed = "time_key" in adata.uns.get(key, {}).get("params", {})
    return "source weight / mean" + (" of time point" if timed else "")


def fold_ticks(low: float, high: float) -> tuple[np.ndarray, list[str]]:
    """Place ticks at whole binary logarithms, up to seven, and write them as factors, such as 1/4, 1 and 4."""
    ends = int(np.ceil(low)), int(np.floor(high))
    step = max(-(-(ends[1] - ends[0]) // 6), 1)
    ticks = np.arange(-(-ends[0] // step) * step, ends[1] + 1, step)
    return ticks, [f"{2**tick}" if tick >= 0 else f"1/{2**-tick}" for tick in ticks.tolist()]
