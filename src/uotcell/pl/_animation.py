"""Populations between the measured time points, as a film."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._cells import Palette, keep_colors
from ._interpolated import color_cells, place_interpolations
from ._interpolation import draw_frame, draw_measured, explain_colors, total_area, update_frame
from ._panels import panel_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.animation import FuncAnimation
    from matplotlib.axes import Axes

    from uotcell.problems import TemporalProblem

_PANEL = (4.0, 4.25)  # inches


def animate_interpolation(
    adata: AnnData,
    problem: TemporalProblem,
    times: Sequence[float],
    *,
    basis: str = "umap",
    color: str | None = None,
    n_neighbors: int = 30,
    interval: float = 100.0,
    size: float | None = None,
    alpha: float = 0.7,
    palette: Palette = None,
    color_map: str | None = None,
    ax: Axes | None = None,
) -> FuncAnimation:
    """Animate the populations that a fit predicts for times between the measured ones, one frame for each time.

    Cells are drawn as by :func:`uotcell.pl.interpolation`. Save the animation with its ``save``, e.g.
    ``animation.save("cells.gif", writer="pillow")``, or show it in a notebook by ``HTML(animation.to_jshtml())``.

    Parameters
    ----------
    adata
        Annotated data of the fit. Not modified, except that the colours which scanpy assigns to the categories of
        `color` are stored in ``.uns["<color>_colors"]``, as scanpy does.
    problem
        Fitted time course, see :func:`uotcell.tl.fit_trajectory`.
    times
        Times in units of the time column, each within a fitted pair, e.g. ``np.linspace(10, 11, 50)``.
    basis
        Two-dimensional embedding, ``"umap"`` or ``"X_umap"`` for ``.obsm["X_umap"]``, or the representation of the fit.
    color
        Column of ``.obs`` or name of a gene; one colour if None.
    n_neighbors
        Number of measured cells that place an interpolated one. Does not apply to the representation itself.
    interval
        Time between frames in milliseconds.
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
        Axes to draw in; a new figure if None.

    Returns
    -------
    The animation. It lives as long as you keep it.

    Raises
    ------
    TypeError, KeyError, ValueError
        If the arguments do not belong together, or a time is in no fitted pair.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> animation = uc.pl.animate_interpolation(adata, problem, [10.0, 10.25, 10.5], color="cell_type")
    >>> animation.to_jshtml().count("data:image/png")
    3
    """
    from matplotlib.animation import FuncAnimation

    embedding, frames = place_interpolations(adata, problem, times, basis=basis, n_neighbors=n_neighbors)
    colors = color_cells(adata, color, palette=palette, color_map=color_map)
    own_figure = ax is None
    if own_figure:
        (ax,) = panel_axes(None, 1, size=_PANEL)
    area = total_area(frames, size)
    draw_measured(ax, embedding, frames)
    cells = draw_frame(ax, frames[0], colors, area=area, alpha=alpha)
    explain_colors([ax], color, colors, np.concatenate([frame.rows for frame in frames]), own_figure=own_figure)
    keep_colors(adata, color, list(colors.names.values()) or None)

    def draw(frame):
        update_frame(cells, frame, colors, area=area, alpha=alpha)
        ax.set_title(f"{problem.params['time_key']} {frame.time:.2f}")
        return (cells,)

    return FuncAnimation(ax.figure, draw, frames=frames, interval=interval, cache_frame_data=False)
