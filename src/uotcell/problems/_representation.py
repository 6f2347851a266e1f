"""Read cells of an AnnData as rows of a dense float array, wherever they are kept."""

from __future__ import annotations

import numpy as np
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
        hint = " Run `sc.pp.pca(adata)` first." if use_rep == "X_pca" else ""
        raise KeyError(f"Expected `use_rep` to be 'X' or one of {sorted(adata.obsm)}, found {use_rep!r}.{hint}")


def representation(adata: AnnData, rows: np.ndarray, use_rep: str, layer: str | None) -> np.ndarray:
    """Return the given rows (ascending) as a dense float32 or float64 array ``(n_cells, n_dims)``.

    Only these rows are made dense or read from a backed file.

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
    cells = matrix.to_numpy()[rows] if hasattr(matrix, "to_numpy") else matrix[rows]
    cells = cells.toarray() if sparse.issparse(cells) else np.asarray(cells)
    if cells.ndim != 2 or cells.dtype.kind not in "fiub":
        raise ValueError(f"Expected {name} to be a numeric matrix, found shape {cells.shape} and dtype {cells.dtype}.")
    cells = cells if cells.dtype == np.float64 else cells.astype(np.float32)
    bad = ~np.isfinite(cells).all(axis=1)
    if bad.any():
        first = adata.obs_names[rows[int(bad.argmax())]]
        raise ValueError(
            f"Expected {name} to be finite, found NaN or inf in {int(bad.sum())} cells (first: {first!r}). Remove "
            "these cells or recompute the representation."
        )
    return cells
