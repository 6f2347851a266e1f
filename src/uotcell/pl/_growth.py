"""Growth over an embedding: what was expected, and what a fit made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._embedding import read_embedding
from ._figure import show_figure
from ._panels import panel_axes
from ._weights import fold_ticks, over_mean, relative_weights, weight_label

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_NO_SOURCE = "0.82"


def growth(
    adata: AnnData,
    *,
    basis: str = "umap",
    key: str = "uot",
    growth_key: str | None = None,
    limit: float | None = None,
    size: float | None = None,
    color_map: str = "RdBu_r",
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
) -> np.ndarray:
    """Draw the source weights that a fit learned over an embedding, beside the growth it was told to expect.

    Both are shown over the mean of the cell's time point: 1 is an average cell, 2 one that counts twice as much. That
    is all a fit takes from `growth_key`, and all its weights say of cells, see :doc:`/concepts`. The scale is
    logarithmic and the same in both panels. Cells that are no source, such as those of the last time point, are grey.

    Parameters
    ----------
    adata
        Annotated data with ``.obs["<key>_source_weight"]``. Not modified.
    basis
        Two-dimensional embedding, ``"umap"`` or ``"X_umap"`` for ``.obsm["X_umap"]``.
    key
        The `key_added` of the fit.
    growth_key
        Column of ``.obs`` with the expected number of descendants, see :func:`uotcell.pp.score_growth`; without it only
        the weights are drawn.
    limit
        Largest factor with a colour of its own, above 1: ``4`` for a scale from 1/4 to 4. By default the factor which
        only 2 % of the cells exceed, up or down, and at least 2.
    size
        Size of the cells in points squared; by default smaller the more there are.
    color_map
        Diverging colour map.
    ax
        Axes to draw in, one or, with `growth_key`, two; a new figure if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    Array of axes ``(n_panels,)``, the prior growth before the weights, whether shown or not.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> [ax.get_title() for ax in uc.pl.growth(adata, show=False)]
    ['learned source weight']
    """
    _, embedding = read_embedding(adata, basis)
    weights = relative_weights(adata, key)
    panels = {"learned source weight": weights}
    label = weight_label(adata, key)
    if growth_key is not None:
        prior = np.where(np.isfinite(weights), _growth_values(adata, growth_key), np.nan)
        panels = {"prior growth": over_mean(adata, key, prior)} | panels
    bound = _bound(np.concatenate(list(panels.values())), limit)
    if size is None:
        size = min(36_000 / adata.n_obs, 40.0)

    axes = panel_axes(ax, len(panels), size=(4.6, 3.9))
    for one, (title, values) in zip(axes, panels.items(), strict=True):
        named = label if values is weights else label.replace("source weight", "growth")
        _draw_panel(one, embedding, values, bound, label=named, size=size, color_map=color_map)
        one.set_title(title)
    show_figure(axes[0], show=show, own_figure=ax is None)
    return axes


def _growth_values(adata: AnnData, growth_key: str) -> np.ndarray:
    """Read expected numbers of descendants, ``(n_cells,)``."""
    if growth_key not in adata.obs:
        raise KeyError(
            f"Expected `growth_key` to be a column of `adata.obs` {list(adata.obs)}, found {growth_key!r}. "
            "Run `uc.pp.score_growth(adata, ...)` first."
        )
    column = adata.obs[growth_key]
    if column.dtype.kind not in "fiu" or not (column[np.isfinite(column)] > 0).any() or (column < 0).any():
        raise ValueError(
            f"Expected `adata.obs[{growth_key!r}]` to hold numbers of descendants, none negative and some positive, "
            f"found {column.dtype} values such as {column.iloc[0]!r}. Exponentiate a log growth rate first."
        )
    return column.to_numpy(dtype=np.float64)


def _bound(values: np.ndarray, limit: float | None) -> float:
    """Binary logarithm of the largest factor with a colour of its own."""
    if limit is None:
        positive = values[np.isfinite(values) & (values > 0)]
        return max(float(np.quantile(np.abs(np.log2(positive)), 0.98)), 1.0)
    if not 1 < limit < np.inf:
        raise ValueError(f"Expected `limit` to be a factor above 1, found {limit!r}.")
    return float(np.log2(limit))


def _draw_panel(
    ax: Axes, embedding: np.ndarray, values: np.ndarray, bound: float, *, label: str, size: float, color_map: str
) -> None:
    """Draw cells without a value in grey, the others above them on a binary logarithmic scale, and its colour bar."""
    from matplotlib.lines import Line2D

    known = np.isfinite(values)
    ax.scatter(*embedding[~known].T, s=0.5 * size, color=_NO_SOURCE, linewidths=0, rasterized=True)
    # In random order: neither high nor low values are on top.
    rows = np.random.default_rng(0).permutation(np.flatnonzero(known))
    with np.errstate(divide="ignore"):
        logs = np.log2(values[rows])
    outline = {"edgecolors": "0.55", "linewidths": 0.02 * np.sqrt(size)}  # white cells are seen on white paper
    cells = ax.scatter(
        *embedding[rows].T, c=np.clip(logs, -bound, bound), s=size, cmap=color_map, vmin=-bound, vmax=bound,
        rasterized=True, **outline,
    )  # fmt: skip
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    extend = ends[bool((logs < -bound).any()), bool((logs > bound).any())]
    bar = ax.figure.colorbar(cells, ax=ax, extend=extend, shrink=0.85, pad=0.02)
    ticks, labels = fold_ticks(-bound, bound)
    bar.set_ticks(ticks, labels=labels)
    bar.set_label(label)
    bar.outline.set_visible(False)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if not known.all():
        handle = Line2D([], [], marker="o", linestyle="", color=_NO_SOURCE, markersize=5, label="no source")
        ax.legend(handles=[handle], loc="lower left", frameon=False, fontsize="small", handletextpad=0.1, borderpad=0)
