"""What the scores of a fit share: labels of its cells, the maps it is compared with, and tables in AnnData."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
from anndata import AnnData

from uotcell.ot._settings import check_count
from uotcell.problems._splits import seed_words, stable_hash
from uotcell.problems._written import WrittenPair, read_pairs, solve_again


def check_resampling(n_bootstrap: int, confidence: float) -> None:
    """Raise unless draws are counted and the confidence is a share."""
    check_count("n_bootstrap", n_bootstrap)
    if not 0 < confidence < 1:
        raise ValueError(f"Expected `confidence` to be in (0, 1), such as 0.95, found {confidence!r}.")


def check_controls(controls: Sequence[str], known: tuple[str, ...]) -> None:
    """Raise unless all controls are known."""
    if isinstance(controls, str) or not set(controls) <= set(known):
        raise ValueError(f"Expected `controls` to be a list of some of {list(known)}, found {controls!r}.")


def group_labels(adata: AnnData, groupby: str, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels of all cells as strings, and their order: that of the categories, or else sorted.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If one of the given rows has no label.
    """
    if groupby not in adata.obs:
        raise KeyError(f"Expected `groupby` to be a column of `adata.obs` {list(adata.obs)}, found {groupby!r}.")
    column = adata.obs[groupby]
    n_missing = int(column.iloc[rows].isna().sum())
    if n_missing:
        raise ValueError(
            f"Expected every cell of the fit to have a label, found {n_missing} missing in `adata.obs[{groupby!r}]`. "
            'Give them one, such as "unknown".'
        )
    is_categorical = isinstance(column.dtype, pd.CategoricalDtype)
    labels = np.asarray([str(label) for label in column.tolist()])
    return labels, [str(label) for label in column.cat.categories] if is_categorical else sorted(set(labels[rows]))


def rows_of(pairs: list[WrittenPair]) -> np.ndarray:
    """Rows of all cells that take part."""
    return np.unique(np.concatenate([rows for pair in pairs for rows in (pair.source_rows, pair.target_rows)]))


def pair_labels(pairs: list[WrittenPair]) -> dict[str, np.ndarray]:
    """Labels of the pairs, which AnnData stores."""
    return {side: np.asarray([getattr(pair, side) for pair in pairs]) for side in ("source", "target")}


def images_of_maps(
    adata: AnnData, key: str, pair: tuple | None, pairs: list[WrittenPair], twin: str | None, controls: Sequence[str]
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Images and mass multipliers of the source cells of every pair: of the fit, its twin and its controls.

    Raises
    ------
    ValueError
        If the twin is not a fit of the same cells, or the coupling cannot be solved again.
    """
    maps = {"fit": [(written.images, written.source_weights) for written in pairs]}
    if twin is not None:
        twins = read_pairs(adata, twin, pair)
        same = len(twins) == len(pairs) and all(
            np.array_equal(ours.source_rows, theirs.source_rows)
            and np.array_equal(ours.target_rows, theirs.target_rows)
            and ours.y.shape == theirs.y.shape
            for ours, theirs in zip(pairs, twins, strict=True)
        )
        if not same:
            raise ValueError(
                f"Expected `twin` to be a fit of the same pairs, cells and representation as {key!r}, found {twin!r}, "
                "which is not. Fit it with the same `time_key`, `use_rep` and `policy`."
            )
        maps["twin"] = [(written.images, written.source_weights) for written in twins]
    if "entropic" in controls:
        couplings = [solve_again(adata, key, written) for written in pairs]
        maps["entropic"] = [
            (coupling.push(written.x), written.source_weights)
            for coupling, written in zip(couplings, pairs, strict=True)
        ]
    if "identity" in controls:
        maps["identity"] = [(written.x, written.source_weights) for written in pairs]
    return maps


def stream(rng: jax.Array | int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return the generator of a seed and a purpose, so that no draw depends on which others were asked for."""
    return np.random.default_rng([*seed_words(rng), stable_hash(purpose), index])


def as_columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of a table as arrays of strings or numbers, which AnnData stores."""
    return {
        str(name): frame[name].to_numpy() if frame[name].dtype.kind in "iuf" else np.asarray(frame[name].tolist(), str)
        for name in frame
    }
