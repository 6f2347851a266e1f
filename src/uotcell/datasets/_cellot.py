"""Read the 4i drug screen as CellOT published it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

CONTROL = "control"
ORIGIN = (
    "Such a file, 8h.h5ad (or 4i-melanoma_cell_lines-8h.h5ad), and features.txt are in the folder 4i of CellOT's data "
    "release at https://doi.org/10.3929/ethz-b-000609681."
)


def read_cellot_4i(path: str | PathLike, *, features: str | PathLike | Sequence[str] | None = None) -> ad.AnnData:
    """Read the 4i screen of 35 drugs on melanoma cells that CellOT published (Bunne et al. 2023).

    The file does not come with uotcell. Download the data release, doi:10.3929/ethz-b-000609681, and give the path of
    its ``8h.h5ad``.

    Parameters
    ----------
    path
        The h5ad file.
    features
        Names of the features to keep, or the path of a text file with one name per line, such as the ``features.txt``
        of the release, with which CellOT's results were obtained. All by default.

    Returns
    -------
    A new object with

    - ``.X``: dense float32 (n_cells, n_features), in the order of ``features``.
    - ``.obs``: the file's columns; ``.obs["drug"]``: categorical (n_cells,), "control" first.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, condition_key, control.

    Layers, embeddings and everything else in the file are left behind.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not the screen: no h5ad file, no column of drugs, no controls, features that are missing or
        values that are not finite.

    References
    ----------
    Bunne, Stark, Gut et al. (2023), Learning single-cell perturbation responses using neural optimal transport,
    Nature Methods 20, 1759-1768, doi:10.1038/s41592-023-01969-x

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.read_cellot_4i("4i/8h.h5ad", features="4i/features.txt")  # doctest: +SKIP
    """
    raw = _read_h5ad(Path(path))
    drug = _check_drug(raw.obs, path)
    if features is not None:
        raw = raw[:, _check_features(features, raw.var_names)]
    values = np.asarray(raw.X.toarray() if sparse.issparse(raw.X) else raw.X, np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"Expected finite features, found NaN or inf in {bad.any(axis=1).sum()} of {raw.n_obs} cells, in "
            f"{_some(raw.var_names[bad.any(axis=0)])}. Keep other features with `features`. {ORIGIN}"
        )
    adata = ad.AnnData(values, obs=raw.obs.assign(drug=drug), var=pd.DataFrame(index=raw.var_names.astype(str)))
    adata.obs_names_make_unique()
    adata.uns["dataset"] = {
        "name": "cellot_4i",
        "description": "Melanoma cells 8 hours after 35 drugs, 4i imaging features",
        "citation": "Bunne, Stark, Gut et al. (2023), Nature Methods 20, 1759-1768, doi:10.1038/s41592-023-01969-x",
        "source": "https://doi.org/10.3929/ethz-b-000609681",
        "condition_key": "drug",
        "control": CONTROL,
    }
    return adata


def _read_h5ad(path: Path) -> ad.AnnData:
    """Read the file, or say what it is instead."""
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*.h5ad")) if path.parent.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"Expected `path` to be an h5ad file, found none at {path} (h5ad files beside it: {beside}). {ORIGIN}"
        )
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            start = file.read(8)
        raise ValueError(
            f"Expected `path` to be an h5ad file, found that {path} is not HDF5 (it starts with {start!r}): an archive "
            f"to unpack, or a download that failed. {ORIGIN}"
        )
    with h5py.File(path) as file:
        groups = sorted(file)
    if not {"X", "obs", "var"} <= set(groups):
        raise ValueError(f"Expected {path} to hold X, obs and var, as h5ad files do, found {groups}. {ORIGIN}")
    return ad.read_h5ad(path)


def _check_drug(obs: pd.DataFrame, path: str | PathLike) -> pd.Categorical:
    """Drug of each cell, controls first."""
    if "drug" not in obs:
        raise ValueError(f"Expected .obs of {path} to have a column 'drug', found {_some(obs.columns)}. {ORIGIN}")
    missing = int(obs["drug"].isna().sum())
    if missing:
        raise ValueError(
            f"Expected .obs['drug'] to name the drug of every cell, found {missing} of {len(obs)} missing. {ORIGIN}"
        )
    drug = obs["drug"].astype(str)
    names = sorted(set(drug))
    if CONTROL not in names or len(names) < 2:
        raise ValueError(
            f"Expected .obs['drug'] to hold {CONTROL!r} and at least one drug, found {_some(names)}. {ORIGIN}"
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
        raise ValueError(f"Expected `features` to be different names, at least one, found {_some(names)}. {ORIGIN}")
    unknown = [name for name in names if (available == name).sum() != 1]
    if unknown:
        raise ValueError(
            f"Expected each of `features` to be one feature of the file, found none or several for {_some(unknown)}. "
            f"The file has {_some(available)}. {ORIGIN}"
        )
    return names


def _some(names: Sequence[str], most: int = 12) -> str:
    """List names for a message, with a count where they are many."""
    shown = [str(name) for name in names[:most]]
    return f"{shown} and {len(names) - most} more" if len(names) > most else f"{shown}"
