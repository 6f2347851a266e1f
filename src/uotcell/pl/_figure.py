"""The figure around a plot: where it is drawn, whether it is shown, room for its legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def show_figure(ax: Axes, *, show: bool | None, own_figure: bool) -> None:
    """Show the figure of `ax` if asked to.

    ``show=None`` follows ``scanpy.settings.autoshow``, but only where there is a window to show and the figure is
    ours: axes that were passed in belong to a figure that may not be finished.
    """
    import scanpy as sc
    from matplotlib import pyplot as plt

    if show is None:
        has_window = ax.figure.canvas.required_interactive_framework is not None
        show = bool(sc.settings.autoshow) and own_figure and has_window
    if show:
        plt.show()


def widen_for_legend(ax: Axes) -> None:
    """Widen the figure of `ax` until a legend to the right is inside; the axes keep their size in inches."""
    legend, figure = ax.get_legend(), ax.figure
    if legend is None:
        return
    excess = (legend.get_window_extent().x1 - figure.bbox.x1) / figure.dpi
    if excess > 0:
        _add_margins(ax, right=excess + 0.1)


def fit_figure(ax: Axes, margin: float = 0.1) -> None:
    """Enlarge the figure of `ax` until all that belongs to it is inside; the axes keep their size in inches."""
    figure = ax.figure
    box = ax.get_tightbbox()
    beyond = {
        "left": -box.x0, "right": box.x1 - figure.bbox.x1, "bottom": -box.y0, "top": box.y1 - figure.bbox.y1,
    }  # fmt: skip
    _add_margins(ax, **{side: max(excess / figure.dpi + margin, 0.0) for side, excess in beyond.items()})


def _add_margins(ax: Axes, *, left: float = 0.0, right: float = 0.0, bottom: float = 0.0, top: float = 0.0) -> None:
    """Enlarge the figure of `ax` by inches on each side; the axes keep their size."""
    width, height = ax.figure.get_size_inches()
    wider, higher = width + left + right, height + bottom + top
    box = ax.get_position()
    ax.figure.set_size_inches(wider, higher)
    ax.set_position(
        [
            (box.x0 * width + left) / wider,
            (box.y0 * height + bottom) / higher,
            box.width * width / wider,
            box.height * height / higher,
        ]
    )
