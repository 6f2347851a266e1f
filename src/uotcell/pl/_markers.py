"""Source weights of a fit against the expression of marker genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._cells import gene_names, gene_values
from ._figure import show_figure
from ._panels import panel_axes
from ._weights import fold_ticks, relative_weights, weight_label

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_Z = 1.959964  # of a 95 % interval
_CENTRAL = (0.005, 0.995)
_MIN_CELLS = 5  # of a bin that is drawn, and of a correlation
_MAX_GROUPS = 20
_N_COLUMNS = 4


class RankCorrelation(NamedTuple):
    """Spearman's ρ with its 95 % interval and p-value."""

    rho: float
    low: float
    high: float
    p_value: float


def weight_markers(
    adata: AnnData,
    genes: str | Sequence[str],
    *,
    key: str = "uot",
    groupby: str | None = None,
    layer: str | None = None,
    n_bins: int = 8,
    size: float | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
    show: bool | None = None,
) -> np.ndarray:
    """Draw the source weights that a fit learned against marker genes, one panel a gene.

    Do the cells that lose mass express apoptosis genes, those that gain it proliferation genes? Every source cell is a
    point: its expression, and its weight over the mean of its time point, on a logarithmic scale, see
    :doc:`/concepts` for what weights mean. The line joins the means of bins of equally many cells, the bars are
    their 95 % intervals; cells without expression are one bin. Above are Spearman's ρ, its 95 % interval by Bonett and
    Wright [1]_, and the p-value of no correlation, which takes cells for independent. Cells that are no source are left
    out; those beyond the central 99 % are drawn at the border.

    Parameters
    ----------
    adata
        Annotated data with ``.obs["<key>_source_weight"]``. Not modified.
    genes
        Names of genes, in ``.raw`` if there is one, or of numeric columns of ``.obs``.
    key
        The `key_added` of the fit.
    groupby
        Column of ``.obs``, such as the time or the cell type: one line for each of its values, in the colours of
        ``.uns["<groupby>_colors"]`` where there are some, with its ρ and interval in the legend.
    layer
        Layer to take expression from.
    n_bins
        Number of bins.
    size
        Size of the points in points squared; by default smaller the more there are.
    ax
        Axes to draw in, one for every gene; a new figure if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    Array of axes ``(n_genes,)``, whether shown or not.

    References
    ----------
    .. [1] Bonett and Wright (2000), Sample size requirements for estimating Pearson, Kendall and Spearman correlations,
       Psychometrika 65(1), 23-28, doi:10.1007/BF02294183

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> axes = uc.pl.weight_markers(adata, ["Top2a", "Mdm2"], show=False)
    >>> [ax.get_xlabel() for ax in axes]
    ['Top2a (expression)', 'Mdm2 (expression)']
    """
    genes = [genes] if isinstance(genes, str) else list(genes)
    if not genes:
        raise ValueError("Expected `genes` to name at least one gene, found none.")
    if n_bins < 1:
        raise ValueError(f"Expected `n_bins` to be at least 1, found {n_bins}.")
    weights = relative_weights(adata, key)
    source = np.isfinite(weights)
    columns = {gene: _expression(adata, gene, layer)[source] for gene in genes}
    if missing := [gene for gene, values in columns.items() if not np.isfinite(values).any()]:
        raise ValueError(f"Expected numbers for source cells, found none for {missing}. Choose other `genes`.")
    groups = _groups(adata, groupby, source)
    smallest = weights[weights > 0].min()
    logs = np.log2(np.maximum(weights[source], smallest))
    if size is None:
        size = float(np.clip(6000 / len(logs), 4.0, 14.0))

    legend_height = 0.0 if groupby is None else 0.19 * len(groups)
    axes = panel_axes(ax, len(columns), size=(3.4, 3.3 + legend_height), n_columns=_N_COLUMNS)
    for place, (one, (gene, values)) in enumerate(zip(axes, columns.items(), strict=True)):
        _draw_panel(one, values, logs, groups, n_bins=n_bins, size=size)
        one.set_xlabel(gene if gene in adata.obs else f"{gene} (expression)")
        if ax is not None or place % _N_COLUMNS == 0:
            one.set_ylabel(weight_label(adata, key))
    show_figure(axes[0], show=show, own_figure=ax is None)
    return axes


def rank_correlation(x: np.ndarray, y: np.ndarray) -> RankCorrelation | None:
    """Spearman's ρ of two samples ``(n,)``; None if they are too few or one does not vary."""
    from scipy.stats import spearmanr

    if len(x) < _MIN_CELLS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    found = spearmanr(x, y)
    rho = float(np.clip(found.statistic, -1, 1))
    # Bonett and Wright 2000: Fisher's transform with a variance that grows with the correlation.
    half = _Z * np.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    with np.errstate(divide="ignore"):
        center = np.arctanh(rho)
    return RankCorrelation(rho, float(np.tanh(center - half)), float(np.tanh(center + half)), float(found.pvalue))


def bin_means(x: np.ndarray, y: np.ndarray, n_bins: int) -> np.ndarray:
    """Average both samples ``(n,)`` in bins of equally many values of `x`, equal values staying together.

    Returns
    -------
    Mean of x, mean of y and half the 95 % interval of the latter, by bin of at least five values, ``(n_bins, 3)``.
    """
    edges = np.unique(np.quantile(x, np.arange(1, n_bins) / n_bins))
    place = np.searchsorted(edges, x, side="left")
    rows = []
    for one in np.unique(place):
        inside = place == one
        n_inside = inside.sum()
        if n_inside >= _MIN_CELLS:
            rows.append((x[inside].mean(), y[inside].mean(), _Z * y[inside].std(ddof=1) / np.sqrt(n_inside)))
    return np.asarray(rows, dtype=np.float64).reshape(-1, 3)


def _expression(adata: AnnData, gene: str, layer: str | None) -> np.ndarray:
    """Values of a gene or of a numeric column of ``.obs``, ``(n_cells,)``."""
    if layer is not None and layer not in adata.layers:
        names = sorted(name for name in adata.layers if name is not None)  # anndata 0.13 lists X as None
        raise KeyError(f"Expected `layer` to be one of {names}, found {layer!r}.")
    if gene in adata.obs:
        if adata.obs[gene].dtype.kind not in "fiub":
            raise ValueError(f"Expected `adata.obs[{gene!r}]` to hold numbers, found {adata.obs[gene].dtype}.")
        return adata.obs[gene].to_numpy(dtype=np.float64)
    if gene not in (names := gene_names(adata, layer)):
        raise KeyError(
            f"Expected `genes` to be among the {len(names)} gene names or numeric columns of `adata.obs`, "
            f"{list(adata.obs)}, found {gene!r}."
        )
    return gene_values(adata, gene, layer)


def _groups(adata: AnnData, groupby: str | None, source: np.ndarray) -> dict[str, tuple[np.ndarray, str]]:
    """Rows among the source cells and colour of every group; all of them together without `groupby`."""
    if groupby is None:
        return {"": (np.arange(source.sum()), "black")}
    if groupby not in adata.obs:
        raise KeyError(f"Expected `groupby` to be a column of `adata.obs` {list(adata.obs)}, found {groupby!r}.")
    column = adata.obs[groupby].astype("category")
    codes = column.cat.codes.to_numpy()[source]
    present = np.unique(codes[codes >= 0])
    if len(present) > _MAX_GROUPS:
        raise ValueError(
            f"Expected at most {_MAX_GROUPS} groups in `adata.obs[{groupby!r}]`, found {len(present)}. Bin its values."
        )
    names = column.cat.categories
    stored = list(adata.uns.get(f"{groupby}_colors", []))
    colors = stored if len(stored) >= len(names) else dict(zip(present, _own_colors(len(present)), strict=False))
    return {str(names[code]): (np.flatnonzero(codes == code), colors[code]) for code in present}


def _own_colors(n_groups: int) -> list[str]:
    """Take the colours of the style, or scanpy's twenty if those are too few."""
    from matplotlib import pyplot as plt
    from scanpy.plotting.palettes import default_20

    cycle = plt.rcParams["axes.prop_cycle"].by_key().get("color", [])
    return cycle if len(cycle) >= n_groups else default_20


def _draw_panel(
    ax: Axes, x: np.ndarray, y: np.ndarray, groups: dict[str, tuple[np.ndarray, str]], *, n_bins: int, size: float
) -> None:
    """Draw the cells, and for every group its line and correlation."""
    # A few cells far from all others would leave no room for the rest: they are drawn at the border.
    left, right = np.nanquantile(x, _CENTRAL)
    low, high = np.quantile(y, _CENTRAL)
    low, high = min(low, -0.5), max(high, 0.5)
    ax.axhline(0, color="0.6", linewidth=1, linestyle="--", zorder=1)
    alone = "" in groups
    for name, (rows, color) in groups.items():
        rows = rows[np.isfinite(x[rows])]
        shown = {"color": "0.5" if alone else color, "alpha": 0.4, "linewidths": 0, "rasterized": True}
        ax.scatter(np.clip(x[rows], left, right), np.clip(y[rows], low, high), s=size, zorder=2, **shown)
        found = rank_correlation(x[rows], y[rows])
        label = _written(found, p_value=alone) if found else _why_not(x[rows])
        if found is not None:
            mean_x, mean_y, half = bin_means(x[rows], y[rows], n_bins).T
            color = "#b2182b" if alone else color
            ax.errorbar(mean_x, mean_y, half, color=color, linewidth=1.5, marker="o", markersize=4, zorder=3)
        if alone:
            ax.set_title(label, fontsize="small")
        else:
            ax.plot([], [], color=color, linewidth=1.5, marker="o", markersize=4, label=f"{name}: {label}")
    margin = 0.04 * (high - low)
    ax.set_ylim(low - margin, high + margin)
    ax.set_yticks(*fold_ticks(low, high))
    ax.spines[["top", "right"]].set_visible(False)
    if not alone:
        narrow = {"handlelength": 1.2, "handletextpad": 0.4, "borderpad": 0.2, "borderaxespad": 0.2}
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small", **narrow)


def _written(found: RankCorrelation, *, p_value: bool) -> str:
    """Write a correlation with its interval and, if asked for, its p-value."""
    text = f"ρ = {found.rho:.2f} [{found.low:.2f}, {found.high:.2f}]"
    if p_value:
        text += ", p < 1e-16" if found.p_value < 1e-16 else f", p = {found.p_value:.2g}"
    return text.replace("-", "−")


def _why_not(x: np.ndarray) -> str:
    """Say why there is no correlation."""
    return "too few cells" if len(x) < _MIN_CELLS else "does not vary"
