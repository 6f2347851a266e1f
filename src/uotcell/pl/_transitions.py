"""Transitions between cell types as a heatmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._cells import Palette
from ._figure import fit_figure, show_figure
from ._transition_table import TransitionTable, read_transitions

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

_CELL = 0.45  # inches
_STRIP = 0.35  # width of the colours along the edges, in cells


def transitions(
    table: pd.DataFrame | AnnData,
    *,
    key: str = "uot",
    annotate: bool = True,
    color_map: str = "Blues",
    palette: Palette = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Draw a table of transitions between cell types as a heatmap, source types down and target types across.

    The colours of the types are drawn along both edges. Rows of types without cells are grey.

    Parameters
    ----------
    table
        Masses ``(n_source_types, n_target_types)``, in rows that sum to one or not; or annotated data with
        ``.uns["<key>_transitions"]``. Not modified.
    key
        The `key` of the transitions in annotated data.
    annotate
        Write the numbers into the cells.
    color_map
        Colour map; it starts at zero, and ends at one if rows sum to one.
    palette
        Colours of the types, overriding ``.uns["<groupby>_colors"]``; scanpy's default if there are none.
    title
        Title; none by default.
    ax
        Axes to draw in; a new figure that suits the number of types if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes, whether shown or not. The colour bar is in an inset of them.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there is no table, or it does not hold masses.

    Examples
    --------
    >>> import pandas as pd
    >>> import uotcell as uc
    >>> table = pd.DataFrame([[0.9, 0.1], [0.2, 0.8]], index=["stem", "blood"], columns=["stem", "blood"])
    >>> ax = uc.pl.transitions(table, show=False)
    >>> [text.get_text() for text in ax.texts]
    ['0.90', '0.10', '0.20', '0.80']
    """
    from matplotlib import colormaps
    from matplotlib import pyplot as plt

    found = read_transitions(table, key=key, palette=palette)
    n_rows, n_columns = found.values.shape

    own_figure = ax is None
    if own_figure:
        size = (_CELL * (n_columns + _STRIP), _CELL * (n_rows + _STRIP))
        ax = plt.figure(figsize=size).add_axes((0, 0, 1, 1))
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(found.values),
        cmap=colormaps[color_map].with_extremes(bad="0.85"),
        edgecolors="white",
        linewidth=1,
        vmin=0,
        vmax=1 if found.normalized else None,
    )
    ax.set(aspect="equal", xlim=(-_STRIP, n_columns), ylim=(n_rows + _STRIP, 0))
    _draw_colors(ax, found)
    _write_names(ax, found)
    if annotate:
        _write_numbers(ax, mesh, found)
    unit = 1 / (n_columns + _STRIP)
    bar = ax.inset_axes([1 + 0.4 * unit, _STRIP / (n_rows + _STRIP), 0.35 * unit, n_rows / (n_rows + _STRIP)])
    ax.figure.colorbar(mesh, cax=bar, label="share of the source type" if found.normalized else "mass")
    bar.set_frame_on(False)
    if title is not None:
        ax.set_title(title)
    if own_figure:
        fit_figure(ax)
    show_figure(ax, show=show, own_figure=own_figure)
    return ax


def _draw_colors(ax: Axes, found: TransitionTable) -> None:
    """Draw the colours of the types in strips to the left of and below the cells."""
    from matplotlib.patches import Rectangle

    n_rows, thick = len(found.rows), _STRIP - 0.1
    for place, name in enumerate(found.rows):
        ax.add_patch(Rectangle((-_STRIP, place + 0.02), thick, 0.96, color=found.colors[name], linewidth=0))
    for place, name in enumerate(found.columns):
        ax.add_patch(Rectangle((place + 0.02, n_rows + 0.1), 0.96, thick, color=found.colors[name], linewidth=0))


def _write_names(ax: Axes, found: TransitionTable) -> None:
    """Write the types along the edges, aslant where they would meet."""
    n_rows, n_columns = found.values.shape
    # A cell is about four letters wide.
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, found.columns)) > 4 else {}
    ax.set_xticks(np.arange(n_columns) + 0.5, found.columns, **slant)
    ax.set_yticks(np.arange(n_rows) + 0.5, found.rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set(xlabel=f"target {found.groupby}".strip(), ylabel=f"source {found.groupby}".strip())


def _write_numbers(ax: Axes, mesh: QuadMesh, found: TransitionTable) -> None:
    """Write every number in black or white, whichever stands out from its cell, as large as fits."""
    decimals = 2 if found.normalized else max(1 - int(np.floor(np.log10(np.nanmax(found.values)))), 0)
    texts = np.vectorize(lambda value: _written(value, decimals), otypes=[object])(found.values)
    ax.apply_aspect()
    cell = 72 * ax.bbox.width / ax.figure.dpi / (found.values.shape[1] + _STRIP)  # points
    fontsize = float(np.clip(cell / (0.75 * max(map(len, texts.ravel()))), 2, 9))
    for (row, column), text in np.ndenumerate(texts):
        red, green, blue, _ = mesh.to_rgba(found.values[row, column])
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        style = {"color": "white" if dark else "black", "fontsize": fontsize}
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", **style)


def _written(value: float, decimals: int) -> str:
    """Write as many decimals; what they would round to zero says that it is not."""
    if np.isnan(value):
        return ""
    if value == 0:
        return "0"
    unit = 10.0**-decimals
    return f"{value:.{decimals}f}" if value >= unit / 2 else f"<{unit:.{decimals}f}".replace("0.", ".")
