"""From principal components back to genes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from anndata import AnnData

from uotcell.problems._representation import representation

# Cells whose components are computed again to see that the loadings and the mean belong to them.
CHECKED_CELLS = 512
TOLERANCE = 1e-2
# Numbers of a matrix that are made dense at a time (64 MB in float32).
BLOCK_ENTRIES = 16_000_000

OWN_DECODER = "Give `decode` a function from (n, n_dims) to (n, n_genes), such as `lambda z: z @ loadings.T + mean`."


def resolve_decoder(
    adata: AnnData, use_rep: str, decode: str | Callable | None, n_dims: int
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return the function that decodes images, None for none.

    Parameters
    ----------
    adata
        Data of the fit.
    use_rep
        Representation of the images.
    decode
        ``"pca"``, a function or None.
    n_dims
        Dimensions of the images.

    Raises
    ------
    ValueError
        If ``decode`` is something else, or the principal components of ``adata`` are not those of its cells.
    """
    if decode is None or callable(decode):
        return decode
    if not isinstance(decode, str) or decode != "pca":
        raise ValueError(f"Expected `decode` to be 'pca', a function or None, found {decode!r}.")
    if use_rep == "X":
        raise ValueError("Expected `decode`=None with `use_rep`='X', found 'pca': the images are features already.")
    # scanpy puts embedding, loadings and settings under `key_added`, or under these names.
    key, settings = (use_rep, use_rep) if use_rep in adata.varm else ("PCs", "pca")
    if key not in adata.varm:
        raise ValueError(
            f"Expected loadings in `adata.varm['PCs']`, found {sorted(adata.varm)}. Run `sc.pp.pca(adata)` before the "
            f"fit. {OWN_DECODER}"
        )
    loadings = np.asarray(adata.varm[key], np.float64)
    if loadings.ndim != 2 or loadings.shape[1] != n_dims:
        raise ValueError(
            f"Expected loadings of {n_dims} components in `adata.varm[{key!r}]`, as many as `use_rep`={use_rep!r} has "
            f"dimensions, found shape {loadings.shape}. {OWN_DECODER}"
        )
    layer = adata.uns.get(settings, {}).get("params", {}).get("layer")
    mean = _pca_mean(adata, use_rep, loadings, layer)
    return lambda images: (images @ loadings.T + mean).astype(np.float32)


def _pca_mean(adata: AnnData, use_rep: str, loadings: np.ndarray, layer: str | None) -> np.ndarray:
    """Return what is added to ``components @ loadings.T``.

    This is ``.var["mean"]`` where the components of cells agree with it. ``sc.pp.scale`` leaves a column of that name
    that the PCA did not subtract; then, or without the column, it is taken from the cells themselves: mean expression
    minus what their mean components decode to, which holds for a subset of the cells of the PCA too.
    """
    stored = np.asarray(adata.var["mean"], np.float64) if "mean" in adata.var else None
    if (adata.X is None) if layer is None else (layer not in adata.layers):
        if stored is None:
            raise ValueError(
                "Expected the matrix of the PCA in `adata` or its mean in `adata.var['mean']`, found neither. "
                f"{OWN_DECODER}"
            )
        return stored
    rows = np.unique(np.linspace(0, adata.n_obs - 1, min(CHECKED_CELLS, adata.n_obs)).astype(int))
    components = representation(adata, rows, use_rep, None).astype(np.float64)
    projected = representation(adata, rows, "X", layer).astype(np.float64) @ loadings

    def error(mean: np.ndarray) -> float:
        return np.linalg.norm(projected - mean @ loadings - components) / np.linalg.norm(components)

    if stored is not None and error(stored) <= TOLERANCE:
        return stored
    mean = _mean(adata, "X", layer) - loadings @ _mean(adata, use_rep, None)
    if not error(mean) <= TOLERANCE:
        matrix = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        raise ValueError(
            f"Expected `adata.obsm[{use_rep!r}]` to be ({matrix} − mean) @ loadings, found a difference of "
            f"{error(mean):.2g} of its norm: {matrix} was changed or genes were removed after the PCA, or it is no "
            f"PCA. Run `sc.pp.pca(adata)` again before the fit. {OWN_DECODER}"
        )
    return mean


def _mean(adata: AnnData, use_rep: str, layer: str | None) -> np.ndarray:
    """Mean of a representation over all cells, in blocks of rows."""
    step = max(1, BLOCK_ENTRIES // max(1, adata.n_vars))
    blocks = (np.arange(start, min(start + step, adata.n_obs)) for start in range(0, adata.n_obs, step))
    return (
        sum(representation(adata, rows, use_rep, layer).sum(axis=0, dtype=np.float64) for rows in blocks) / adata.n_obs
    )
