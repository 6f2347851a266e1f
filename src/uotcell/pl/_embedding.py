"""Read an embedding from AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uotcell.problems._representation import dense

if TYPE_CHECKING:
    from anndata import AnnData


def read_embedding(adata: AnnData, basis: str, *, first_two: bool = False) -> tuple[str, np.ndarray]:
    """Name of the slot in ``.obsm`` and its positions, ``(n_cells, 2)``; of a wider slot the first two if asked to."""
    name = next((name for name in (basis, f"X_{basis}") if name in adata.obsm), None)
    if name is None:
        raise KeyError(
            f"Expected `basis` to name one of {sorted(adata.obsm)} in `adata.obsm`, found {basis!r}. "
            "Run `sc.tl.umap(adata)` or choose another `basis`."
        )
    embedding = dense(adata.obsm[name]).astype(np.float64)
    if first_two and embedding.ndim == 2 and embedding.shape[1] > 2:
        embedding = embedding[:, :2]
    if embedding.ndim != 2 or embedding.shape[1] != 2:
        raise ValueError(
            f"Expected `adata.obsm[{name!r}]` to have shape ({adata.n_obs}, 2), found {embedding.shape}. "
            "Choose a two-dimensional `basis`."
        )
    return name, embedding
