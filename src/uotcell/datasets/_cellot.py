"""Read the 4i drug screen as CellOT published it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from uotcell.datasets._fetch import fetch
from uotcell.datasets._published import read_h5ad, some
from uotcell.datasets._registry import entries

CONTROL = "control"
ORIGIN = (
    "Such a file, 8h.h5ad (or 4i-melanoma_cell_lines-8h.h5ad), and features.txt are in the folder 4i of CellOT's data "
    "release at https://doi.org/10.3929/ethz-b-000609681."
)


def read_cellot_4i(
    path: str | PathLike | None = None, *, features: str | PathLike | Sequence[str] | None = None
) -> ad.AnnData:
    """Read the 4i screen of 35 drugs on melanoma cells that CellOT published (Bunne et al. 2023).

    The file does not come with uotcell. Download the data release, doi:10.3929/ethz-b-000609681, and give the path of
    its ``8h.h5ad``.

    Parameters
    ----------
    path
        The h5ad file. It has no address of its own, so nothing is downloaded: without a path you are told where it is.
    features
        Names of the features to keep, or the path of a text file with one name per line, such as the ``features.txt``
        of the release, with which CellOT's results were obtained. All by default.

    Returns
    -------
    A new object with

    - ``.X``: dense float32 (n_cells, n_features), in the order of ``features``.
    - ``.obs``: the file's columns; ``.obs["drug"]``: categorical (n_cells,), "control" first.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, perturbation_key,
      control.

    Layers, embeddings and everything else in the file are left behind.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If no path is given, or the file is not the screen: no h5ad file, no column of drugs, no controls, features that
        are missing or values that are not finite.

    References
    ----------
    Bunne, Stark, Gut et al. (2023), Learning single-cell perturbation responses using neural optimal transport,
    Nature Methods 20, 1759-1768, doi:10.1038/s41592-023-01969-x

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.read_cellot_4i("4i/8h.h5ad", features="4i/features.txt")  # doctest: +SKIP
    """
    entry = entries()["cellot_4i"]
    file = fetch(entry, path)
    raw = read_h5ad(file, entry)
    drug = _check_drug(raw.obs, path)
    if features is not None:
        raw = raw[:, _check_features(features, raw.var_names)]
    values = np.asarray(raw.X.toarray() if sparse.issparse(raw.X) else raw.X, np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"Expected finite features, found NaN or inf in {bad.any(axis=1).sum()} of {raw.n_obs} cells, in "
            f"{some(raw.var_names[bad.any(axis=0)])}. Keep other features with `features`. {ORIGIN}"
        )
    adata = ad.AnnData(values, obs=raw.obs.assign(drug=drug), var=pd.DataFrame(index=raw.var_names.astype(str)))
    adata.obs_names_make_unique()
    adata.uns["dataset"] = entry.describe()
    return adata


def _check_drug(obs: pd.DataFrame, path: str | PathLike) -> pd.Categorical:
    """Drug of each cell, controls first."""
    if "drug" not in obs:
        raise ValueError(f"Expected .obs of {path} to have a column 'drug', found {some(obs.columns)}. {ORIGIN}")
    missing = int(obs["drug"].isna().sum())
    if missing:
        raise ValueError(
            f"Expected .obs['drug'] to name the drug of every cell, found {missing} of {len(obs)} missing. {ORIGIN}"
        )
    drug = obs["drug"].astype(str)
    names = sorted(set(drug))
    if CONTROL not in names or len(names) < 2:
        raise ValueError(
            f"Expected .obs['drug'] to hold {CONTROL!r} and at least one drug, found {some(names)}. {ORIGIN}"
        )
    return pd.Categorical(drug, categories=[CONTROL, *(name for name in names if name != CONTROL)])


def _check_features(features: str | PathLike | Sequence[str], available: pd.Index) -> list[str]:
    """Names to keep, each of which the file has once."""
    if isinstance(features, (str, PathLike)):
        listing = Path(features)
        if not listing.is_file():
            raise FileNotFoundError(
                f"Expected `features` to be names or the path of a text file of names, found no file at {listing}. "
                f"{ORIGIN}"
            )
        features = listing.read_text(encoding="utf-8").split()
    names = [str(name) for name in features]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Expected `features` to be different names, at least one, found {some(names)}. {ORIGIN}")
    unknown = [name for name in names if (available == name).sum() != 1]
    if unknown:
        raise ValueError(
            f"Expected each of `features` to be one feature of the file, found none or several for {some(unknown)}. "
            f"The file has {some(available)}. {ORIGIN}"
        )
    return names
