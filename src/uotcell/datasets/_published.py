"""What the readers of published files share: reading, checking, and the slots that are missing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from uotcell.datasets._fetch import origin
from uotcell.datasets._registry import Entry

N_COMPONENTS = 50


def check_h5ad(path: Path, entry: Entry) -> None:
    """Raise unless the file is HDF5 with the groups of an AnnData; say what it is instead."""
    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            start = file.read(8)
        raise ValueError(
            f"Expected `path` to be an h5ad file, found that {path} is not HDF5 (it starts with {start!r}): an archive "
            f"to unpack, or a download that failed. {origin(entry)}"
        )
    with h5py.File(path) as file:
        groups = sorted(file)
    if not {"X", "obs", "var"} <= set(groups):
        raise ValueError(f"Expected {path} to hold X, obs and var, as h5ad files do, found {groups}. {origin(entry)}")


def read_h5ad(path: Path, entry: Entry) -> ad.AnnData:
    """Read a whole h5ad file, also one written in the format of 2019, about which anndata would warn."""
    check_h5ad(path, entry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.OldFormatWarning)
        return ad.read_h5ad(path)


def check_columns(obs: pd.DataFrame, columns: Sequence[str], path: Path, entry: Entry) -> None:
    """Raise unless the cells have all columns."""
    missing = [name for name in columns if name not in obs]
    if missing:
        raise ValueError(
            f"Expected .obs of {path} to have columns {list(columns)}, found none called {missing} among "
            f"{some(obs.columns)}. {origin(entry)}"
        )


def numbers(column: pd.Series, path: Path, entry: Entry) -> np.ndarray:
    """Return a column of numbers, or of text that says numbers, as float64."""
    values = pd.to_numeric(column.astype(str), errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(
            f"Expected .obs[{column.name!r}] of {path} to be numbers, found {some(column[bad].astype(str).unique())} "
            f"in {bad.sum()} of {len(values)} cells. {origin(entry)}"
        )
    return values


def choose_days(days: Sequence[float] | None, found: np.ndarray) -> np.ndarray:
    """Mask of the cells at the chosen days; all when none are given."""
    if days is None:
        return np.ones(len(found), bool)
    known, chosen = np.unique(found), np.unique(np.asarray(days, np.float64))
    if not len(chosen) or not np.isin(chosen, known).all():
        raise ValueError(f"Expected `days` to be some of {known.tolist()}, at least one, found {list(days)}.")
    return np.isin(found, chosen)


def labels(column: pd.Series) -> pd.Categorical:
    """Return a column as categories of text; "unknown" where it is missing."""
    values = column.astype(object).where(column.notna(), "unknown")
    return pd.Categorical(values.astype(str))


def expression(matrix: np.ndarray | sparse.spmatrix) -> sparse.csr_matrix:
    """Return expression as CSR float32."""
    return sparse.csr_matrix(matrix, dtype=np.float32)


def choose_genes(adata: ad.AnnData, n_genes: int = 2_000) -> None:
    """Flag the variable genes of log-normalised expression in ``.var["highly_variable"]``, or all if there are few."""
    import scanpy as sc

    adata.var["highly_variable"] = True
    if adata.n_vars > n_genes:
        table = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=n_genes, inplace=False)
        adata.var["highly_variable"] = table["highly_variable"].to_numpy(bool)


def add_pca(adata: ad.AnnData) -> None:
    """Add the PCA of all cells on ``.var["highly_variable"]``, in the slots the embedded datasets have."""
    import scanpy as sc

    chosen = adata.var["highly_variable"].to_numpy()
    n_components = min(N_COMPONENTS, adata.n_obs - 1, int(chosen.sum()) - 1)
    scratch = ad.AnnData(adata.X, var=pd.DataFrame({"used": chosen}, index=adata.var_names))
    sc.pp.pca(scratch, n_comps=n_components, mask_var="used", svd_solver="arpack", random_state=0)
    # scipy adds up float32, which is not enough for many cells.
    adata.var["mean"] = np.bincount(adata.X.indices, weights=adata.X.data, minlength=adata.n_vars) / adata.n_obs
    adata.varm["PCs"] = np.asarray(scratch.varm["PCs"], np.float32)
    adata.obsm["X_pca"] = np.asarray(scratch.obsm["X_pca"], np.float32)


def some(names: Sequence[str], most: int = 12) -> str:
    """List names for a message, with a count where they are many."""
    shown = [str(name) for name in names[:most]]
    return f"{shown} and {len(names) - most} more" if len(names) > most else f"{shown}"
