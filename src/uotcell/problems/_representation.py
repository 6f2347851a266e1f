"""Read cells of an AnnData as rows of a dense float array, wherever they are kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse


def check_representation(adata: AnnData, use_rep: str, layer: str | None) -> None:
    """Raise unless ``use_rep`` and ``layer`` name one matrix of ``adata``."""
    if layer is not None:
        if use_rep != "X":
            raise ValueError(f"Expected `use_rep` to be 'X' when `layer`={layer!r} is given, found {use_rep!r}.")
        if layer not in adata.layers:
            names = sorted(name for name in adata.layers if name is not None)  # anndata 0.13 lists X as None
            raise KeyError(f"Expected `layer` to be one of {names}, found {layer!r}.")
    elif use_rep == "X":
        if adata.X is None:
            raise ValueError("Expected `adata.X` to hold a matrix for `use_rep`='X', found None.")
    elif use_rep not in adata.obsm:
        hints = {"X_pca": " Run `sc.pp.pca(adata)` first.", "raw": " Take `adata.raw.to_adata()` for all genes."}
        hint = hints.get(use_rep, "")
        raise KeyError(f"Expected `use_rep` to be 'X' or one of {sorted(adata.obsm)}, found {use_rep!r}.{hint}")


def representation(adata: AnnData, rows: np.ndarray, use_rep: str, layer: str | None) -> np.ndarray:
    """Return the given rows (ascending) as a dense float32 or float64 array ``(n_cells, n_dims)``.

    Only these rows are made dense, computed by dask or read from a backed file.

    Raises
    ------
    ValueError
        If a value is NaN or infinite.
    """
    if layer is not None:
        matrix, name = adata.layers[layer], f"adata.layers[{layer!r}]"
    elif use_rep == "X":
        matrix, name = adata.X, "adata.X"
    else:
        matrix, name = adata.obsm[use_rep], f"adata.obsm[{use_rep!r}]"
    cells = dense((matrix.to_numpy() if isinstance(matrix, pd.DataFrame) else matrix)[rows])
    if cells.ndim != 2 or cells.dtype.kind not in "fiub":
        raise ValueError(f"Expected {name} to be a numeric matrix, found shape {cells.shape} and dtype {cells.dtype}.")
    # CSC becomes dense column by column, and the last digits of sums depend on that: one layout, one answer.
    cells = np.ascontiguousarray(cells, cells.dtype if cells.dtype == np.float64 else np.float32)
    bad = ~np.isfinite(cells).all(axis=1)
    if bad.any():
        first = adata.obs_names[rows[int(bad.argmax())]]
        raise ValueError(
            f"Expected {name} to be finite, found NaN or inf in {int(bad.sum())} cells (first: {first!r}). Remove "
            "these cells or recompute the representation."
        )
    return cells


def all_cells(adata: AnnData, use_rep: str, layer: str | None) -> np.ndarray:
    """Return the representation of all cells, after checking that there is one."""
    check_representation(adata, use_rep, layer)
    return representation(adata, np.arange(adata.n_obs), use_rep, layer)


def in_memory(matrix) -> np.ndarray | sparse.spmatrix | sparse.sparray:
    """Return a matrix, or a part of one, that dask has yet to compute or that may be on disk."""
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    elif hasattr(matrix, "to_memory"):
        matrix = matrix.to_memory()
    return matrix if sparse.issparse(matrix) else np.asarray(matrix)


def dense(matrix) -> np.ndarray:
    """Return a matrix, or a part of one, as a dense array in memory, wherever it is kept."""
    matrix = in_memory(matrix)
    return matrix.toarray() if sparse.issparse(matrix) else matrix


def align_features(names: pd.Index, expected: pd.Index) -> np.ndarray | slice:
    """Return where the expected features are among ``names``; features that are not expected are left out.

    Raises
    ------
    ValueError
        If one is missing, or names that stand in another order are not unique.
    """
    if names.equals(expected):
        return slice(None)
    if not (names.is_unique and expected.is_unique):
        raise ValueError(
            "Expected `.var_names` to be unique, or the same as in the fit, found repeated names in another order. Run "
            "`adata.var_names_make_unique()` before the fit, and on these cells."
        )
    order = names.get_indexer(expected)
    missing = expected[order < 0]
    if len(missing):
        raise ValueError(
            f"Expected cells with the {len(expected)} features of the fit, found {len(missing)} of them missing: "
            f"{missing[:5].tolist()}{' and more' if len(missing) > 5 else ''}. Give all of them, named as in the fit."
        )
    return order
