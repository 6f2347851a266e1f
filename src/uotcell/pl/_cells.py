"""Cells over an embedding in scanpy's colours, drawn from a small copy so that scanpy changes nothing of the user's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uotcell.problems._representation import dense
from uotcell.problems._slots import write_slots

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

Palette = str | Sequence[str] | Mapping[str, str] | None


def colored_cells(adata: AnnData, basis: str, embedding: np.ndarray, color: str | None) -> AnnData:
    """Copy the embedding ``(n_cells, 2)``, the values of `color` and the colours stored for it."""
    import pandas as pd
    from anndata import AnnData

    obs = pd.DataFrame(index=np.arange(adata.n_obs).astype(str))
    uns = {}
    if color is not None:
        obs[color] = color_values(adata, color)
        stored = f"{color}_colors"
        if stored in adata.uns:
            uns[stored] = adata.uns[stored]
    return AnnData(obs=obs, obsm={basis: embedding}, uns=uns)


def draw_cells(cells: AnnData, basis: str, color: str | None, *, ax: Axes, title: str, **style) -> None:
    """Scatter the cells in `ax` without a frame."""
    import scanpy as sc

    style["legend_fontoutline"] = 2  # of labels on the data, which are read over streams

    with warnings.catch_warnings():
        # scanpy up to 1.12 calls a method that matplotlib 3.11 announces to deprecate.
        warnings.filterwarnings("ignore", "The set_bad function", PendingDeprecationWarning)
        sc.pl.embedding(cells, basis, color=color, title=title, ax=ax, frameon=False, show=False, **style)


def keep_colors(adata: AnnData, color: str | None, colors: Sequence[str] | None) -> None:
    """Store the colours scanpy gave to the categories, so that the next plot, of a subset too, uses the same."""
    # A view is left alone: writing to it would copy its data.
    if colors is not None and not adata.is_view:
        write_slots((adata, {"uns": {f"{color}_colors": list(colors)}}))


def category_colors(names: Sequence[str], *, stored: Sequence[str] | None, palette: Palette) -> dict[str, str]:
    """Colours by name, as scanpy would give them to these categories with these colours `stored`."""
    import pandas as pd
    from anndata import AnnData
    from matplotlib.figure import Figure

    obs = pd.DataFrame({"name": pd.Categorical(names, categories=names)}, index=np.arange(len(names)).astype(str))
    cells = AnnData(obs=obs, obsm={"X": np.zeros((len(names), 2))})
    if stored is not None:
        cells.uns["name_colors"] = list(stored)
    # A figure nobody sees: scanpy settles on colours when it draws.
    draw_cells(cells, "X", "name", ax=Figure().add_subplot(), title="", palette=palette, legend_loc=None)
    # Of categories that are gone colours may be left.
    return dict(zip(names, cells.uns["name_colors"], strict=False))


def color_values(adata: AnnData, color: str):
    """Values of a column of ``.obs`` or of a gene, in ``.raw`` if there is one, as scanpy has it."""
    if color in adata.obs:
        return adata.obs[color].array
    genes = gene_names(adata)
    if color not in genes:
        raise KeyError(
            f"Expected `color` to be a column of `adata.obs`, {list(adata.obs)}, or one of the {len(genes)} gene "
            f"names, found {color!r}. Add it to `adata.obs` or choose another `color`."
        )
    return gene_values(adata, color)


def gene_names(adata: AnnData, layer: str | None = None) -> pd.Index:
    """Names of the genes, in ``.raw`` if there is one and no `layer`, as scanpy has it."""
    return (adata if layer is not None or adata.raw is None else adata.raw).var_names


def gene_values(adata: AnnData, gene: str, layer: str | None = None) -> np.ndarray:
    """Values of one of these genes, ``(n_cells,)`` float64.

    Raises
    ------
    ValueError
        If several have this name, or there is no matrix.
    """
    places = np.flatnonzero(gene_names(adata, layer) == gene)
    if len(places) > 1:
        raise ValueError(
            f"Expected one gene of the name {gene!r}, found {len(places)}. Run `adata.var_names_make_unique()`."
        )
    matrix = (adata if adata.raw is None else adata.raw).X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(f"Expected `adata.X` to hold the values of {gene!r}, found None.")
    return np.ravel(dense(matrix[:, places])).astype(np.float64)
