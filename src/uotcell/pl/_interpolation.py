"""Populations between the measured time points, on an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._cells import Palette, keep_colors
from ._figure import show_figure
from ._interpolated import CellColors, Frame, color_cells, place_interpolations
from ._panels import panel_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

    from uotcell.problems import TemporalProblem

_PANEL = (2.6, 2.85)  # inches


def interpolation(
    adata: AnnData,
    problem: TemporalProblem,
    times: float | Sequence[float],
    *,
    basis: str = "umap",
    color: str | None = None,
    n_neighbors: int = 30,
    n_columns: int = 4,
    size: float | None = None,
    alpha: float = 0.7,
    palette: Palette = None,
    color_map: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
) -> np.ndarray:
    """Draw the populations that a fit predicts for times between the measured ones, one panel for each time.

    Measured cells are grey. An interpolated cell has the colour of the measured cell it comes from, and an area in
    proportion to its weight, so that the cells of every panel together cover the same area. It is placed in the
    embedding at the Gaussian-kernel average of the measured cells nearest to it, hence never outside of them: look at
    the representation itself (its name as `basis`, which draws the first two columns) for what is between populations.

    Parameters
    ----------
    adata
        Annotated data of the fit. Not modified, except that the colours which scanpy assigns to the categories of
        `color` are stored in ``.uns["<color>_colors"]``, as scanpy does.
    problem
        Fitted time course, see :func:`uotcell.tl.fit_trajectory`.
    times
        Times in units of the time column, each within a fitted pair.
    basis
        Two-dimensional embedding, ``"umap"`` or ``"X_umap"`` for ``.obsm["X_umap"]``, or the representation of the fit.
    color
        Column of ``.obs`` or name of a gene; one colour if None.
    n_neighbors
        Number of measured cells that place an interpolated one. Does not apply to the representation itself.
    n_columns
        Number of panels in a row of a new figure.
    size
        Mean area of the interpolated cells in points², at the time with the most of them; smaller the more cells there
        are if None.
    alpha
        Opacity of the interpolated cells.
    palette
        Colours of the categories, overriding ``.uns["<color>_colors"]``.
    color_map
        Colour map of a continuous `color`.
    ax
        Axes to draw in, as many as times; a new figure if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    Array of the axes, ``(n_times,)``, whether shown or not.

    Raises
    ------
    TypeError, KeyError, ValueError
        If the arguments do not belong together, or a time is in no fitted pair.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> axes = uc.pl.interpolation(adata, problem, [10.25, 10.5, 10.75], color="cell_type", show=False)
    >>> [ax.get_title() for ax in axes]
    ['day 10.25', 'day 10.5', 'day 10.75']
    """
    embedding, frames = place_interpolations(adata, problem, times, basis=basis, n_neighbors=n_neighbors)
    if n_columns < 1:
        raise ValueError(f"Expected `n_columns` to be positive, found {n_columns}.")
    own_figure = ax is None
    colors = color_cells(adata, color, palette=palette, color_map=color_map)
    axes = panel_axes(ax, len(frames), size=_PANEL, n_columns=n_columns)
    area = total_area(frames, size)
    for panel, frame in zip(axes, frames, strict=True):
        draw_measured(panel, embedding, frames)
        draw_frame(panel, frame, colors, area=area, alpha=alpha)
        panel.set_title(f"{problem.params['time_key']} {frame.time:g}")
    rows = np.concatenate([frame.rows for frame in frames])
    explain_colors(axes, color, colors, rows, own_figure=own_figure)
    keep_colors(adata, color, list(colors.names.values()) or None)
    show_figure(axes[0], show=show, own_figure=own_figure)
    return axes


def draw_measured(ax: Axes, embedding: np.ndarray, frames: Sequence[Frame]) -> None:
    """Scatter the measured cells in grey, in limits that hold all interpolated cells too."""
    everywhere = np.concatenate([embedding, *(frame.positions for frame in frames)])
    low, high = np.nanmin(everywhere, axis=0), np.nanmax(everywhere, axis=0)
    margin = 0.04 * (high - low)
    (left, bottom), (right, top) = low - margin, high + margin
    ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.set_axis_off()
    ax.scatter(*embedding.T, s=min(20_000 / len(embedding), 12), color="0.85", linewidths=0, zorder=1, rasterized=True)


def draw_frame(ax: Axes, frame: Frame, colors: CellColors, *, area: float, alpha: float) -> PathCollection:
    """Scatter interpolated cells, the heavy ones first so that they hide no others."""
    cells = ax.scatter([], [], linewidths=0, zorder=2)
    update_frame(cells, frame, colors, area=area, alpha=alpha)
    return cells


def update_frame(cells: PathCollection, frame: Frame, colors: CellColors, *, area: float, alpha: float) -> None:
    """Move drawn cells to another time."""
    order = np.argsort(-frame.weights, kind="stable")
    rgba = colors.rgba[frame.rows[order]].copy()
    rgba[:, 3] *= alpha
    cells.set_offsets(frame.positions[order])
    cells.set_sizes(area * frame.weights[order])
    cells.set_facecolors(rgba)


def explain_colors(
    axes: Sequence[Axes], color: str | None, colors: CellColors, rows: np.ndarray, *, own_figure: bool
) -> None:
    """Add the legend of the categories that the cells `rows` have, or the colour bar, to the right of all panels."""
    from matplotlib.lines import Line2D

    figure = axes[-1].figure
    if colors.scale is not None:
        figure.colorbar(colors.scale, ax=list(axes) if own_figure else axes[-1], label=color, shrink=0.8)
    if not colors.names:
        return
    present = set(colors.codes[rows])
    style = {"marker": "o", "linestyle": "", "markersize": 6, "markeredgewidth": 0}
    handles = [
        Line2D([], [], color=color, label=name, **style)
        for code, (name, color) in enumerate(colors.names.items())
        if code in present
    ]
    style = {"handles": handles, "frameon": False, "ncols": -(-len(handles) // 14), "handletextpad": 0.2}
    if not own_figure:
        axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **style)
        return
    legend = figure.legend(loc="outside right center", **style)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + legend.get_window_extent().width / figure.dpi, height)


def total_area(frames: Sequence[Frame], size: float | None) -> float:
    """Area of all cells of a frame together in points², `size` for each where there are most."""
    n_cells = max(len(frame.weights) for frame in frames)
    return n_cells * (min(8_000 / n_cells, 20) if size is None else size)
