"""Log-normalised expression of some genes, wherever an AnnData keeps it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from uotcell.problems._representation import in_memory

# Logarithms of counts, natural or to base 2, and variance-stabilised values stay far below.
_LARGEST_LOG = 50.0


def expression_matrix(
    adata: AnnData, *, layer: str | None, use_raw: bool | None, gene_symbols: str | None
) -> tuple[object, pd.Index, str]:
    """Return the matrix to score, the names of its genes and how it is called.

    Parameters
    ----------
    adata
        Annotated data.
    layer
        Layer to take.
    use_raw
        Take ``.raw``; if None, where there is one and no `layer` is given.
    gene_symbols
        Column of ``.var`` with the names; ``.var_names`` if None.

    Raises
    ------
    KeyError, ValueError
        If it does not exist, or `layer` and `use_raw` contradict each other.
    """
    if use_raw and (layer is not None or adata.raw is None):
        found = f"`layer`={layer!r}" if layer is not None else "no `adata.raw`"
        raise ValueError(f"Expected `adata.raw` and no `layer` with `use_raw`=True, found {found}. Give one of them.")
    if layer is not None:
        if layer not in adata.layers:
            names = sorted(name for name in adata.layers if name is not None)  # anndata 0.13 lists X as None
            raise KeyError(f"Expected `layer` to be one of {names}, found {layer!r}.")
        genes, matrix, name = adata, adata.layers[layer], f"adata.layers[{layer!r}]"
    elif use_raw or (use_raw is None and adata.raw is not None):
        genes, matrix, name = adata.raw, adata.raw.X, "adata.raw.X"
    else:
        genes, matrix, name = adata, adata.X, "adata.X"
    if matrix is None:
        raise ValueError("Expected `adata.X` to hold expression, found None. Give a `layer`.")
    if gene_symbols is None:
        return matrix, genes.var_names, name
    if gene_symbols not in genes.var:
        raise KeyError(
            f"Expected `gene_symbols` to be a column of `.var` {list(genes.var)} of {name}, found {gene_symbols!r}."
        )
    return matrix, pd.Index(genes.var[gene_symbols].astype(str)), name


def log_expression(matrix, columns: np.ndarray, name: str) -> sparse.csc_array | np.ndarray:
    """Return some columns (ascending) and check that they are log-normalised.

    Returns
    -------
    Float64, ``(n_cells, n_genes)``; sparse where the matrix is.

    Raises
    ------
    ValueError
        If values are missing or negative, or look like counts.
    """
    x = in_memory(matrix[:, columns])
    x = sparse.csc_array(x, dtype=np.float64) if sparse.issparse(x) else np.asarray(x, dtype=np.float64)
    values = x.data if sparse.issparse(x) else x
    if not np.isfinite(values).all():
        raise ValueError(f"Expected {name} to be finite, found NaN or inf. Remove these cells or recompute it.")
    if values.size and values.min() < 0:
        raise ValueError(
            f"Expected {name} to hold log-normalised expression, found negative values such as {values.min():.3g}, as "
            "in scaled data or residuals. Give expression before scaling as `layer`, or keep it in `adata.raw`."
        )
    if values.size and values.max() > 1 and (values == np.rint(values)).all():
        found = f"whole numbers up to {values.max():.0f}, as in counts"
    elif values.size and values.max() > _LARGEST_LOG:
        found = f"values up to {values.max():.0f}"
    else:
        return x
    raise ValueError(
        f"Expected {name} to hold log-normalised expression, found {found}. Run `sc.pp.normalize_total(adata)` and "
        "`sc.pp.log1p(adata)`, or give the `layer` that holds it."
    )


def mean_z_score(x: sparse.csc_array | np.ndarray, *, largest: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """Average the z-scores of genes over each cell, cut off at ± `largest`.

    Parameters
    ----------
    x
        Expression, ``(n_cells, n_genes)``.
    largest
        Where a z-score is cut off.

    Returns
    -------
    Score of every cell, ``(n_cells,)``, 0 if no gene varies, and which genes vary, bool ``(n_genes,)``. Those that do
    not are left out of the average.
    """
    total = np.zeros(x.shape[0])
    varies = np.zeros(x.shape[1], dtype=bool)
    for gene in range(x.shape[1]):  # one at a time: all of them dense would be a large copy
        column = x[:, [gene]].toarray()[:, 0] if sparse.issparse(x) else x[:, gene]
        if np.ptp(column) > 0:
            varies[gene] = True
            total += np.clip((column - column.mean()) / column.std(), -largest, largest)
    return total / max(varies.sum(), 1), varies
