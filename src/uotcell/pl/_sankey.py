"""Transitions between cell types as a Sankey diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ._cells import Palette
from ._figure import fit_figure, show_figure
from ._transition_table import TransitionTable, read_transitions

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_BLOCK = 0.04  # width of a block, the diagram being one wide
_LINE = 1.35  # distance of two labels, in font sizes


class _Side(NamedTuple):
    """Blocks of one side from top to bottom: rows or columns of the table, upper edges and heights, ``(n_blocks,)``."""

    types: np.ndarray
    tops: np.ndarray
    heights: np.ndarray


def sankey(
    table: pd.DataFrame | AnnData,
    *,
    key: str = "uot",
    min_share: float = 0.01,
    palette: Palette = None,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Draw a table of transitions between cell types as a Sankey diagram, from source types left to target types right.

    The height of a block is the mass of its type, that of a band the mass that goes from one to the other, in the
    colour of its source. If the rows of the table sum to one, all source types have the same height, and the blocks at
    the right say where types go, not how many cells they hold.

    Parameters
    ----------
    table
        Masses ``(n_source_types, n_target_types)``, in rows that sum to one or not; or annotated data with
        ``.uns["<key>_transitions"]``. Not modified.
    key
        The `key` of the transitions in annotated data.
    min_share
        Bands with less than this share of their source's mass are not drawn, nor are target types that no other band
        reaches. The line under the diagram says how much that is.
    palette
        Colours of the types, overriding ``.uns["<groupby>_colors"]``; scanpy's default if there are none.
    title
        Title; by default the `groupby` of the table and, if rows sum to one, that source types count alike.
    ax
        Axes to draw in; a new figure that suits the number of types if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes, whether shown or not.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there is no table, it does not hold masses, or `min_share` leaves no band.

    Examples
    --------
    >>> import pandas as pd
    >>> import uotcell as uc
    >>> table = pd.DataFrame([[30, 10], [0, 60]], index=["stem", "blood"], columns=["stem", "blood"])
    >>> ax = uc.pl.sankey(table, show=False)
    >>> [text.get_text() for text in ax.texts]
    ['source', 'target', 'stem (40 %)', 'blood (60 %)', 'stem (30 %)', 'blood (70 %)']
    """
    from matplotlib import pyplot as plt

    if not 0 <= min_share < 1:
        raise ValueError(f"Expected `min_share` to be in [0, 1), found {min_share}.")
    found = read_transitions(table, key=key, palette=palette)
    shares = np.nan_to_num(found.values) / np.nansum(found.values)
    drawn = (shares > 0) & (shares >= min_share * shares.sum(axis=1, keepdims=True))
    if not drawn.any():
        raise ValueError(f"Expected a band of at least `min_share`={min_share}, found none. Lower `min_share`.")
    sides = [_side(shares.sum(axis=1 - axis), drawn.any(axis=1 - axis)) for axis in (0, 1)]

    own_figure = ax is None
    if own_figure:
        body = max(2.6, 0.26 * max(len(side.types) for side in sides))  # inches
        ax = plt.figure(figsize=(3.6, body)).add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(max(side.tops[-1] + side.heights[-1] for side in sides), 0))
    _draw_bands(ax, found, np.where(drawn, shares, 0.0), sides)
    _write_around(ax, found, shares, drawn, min_share, title)
    for side, names, left in zip(sides, (found.rows, found.columns), (True, False), strict=True):
        _draw_blocks(ax, side, names, found, left=left)
    if own_figure:
        fit_figure(ax)
    show_figure(ax, show=show, own_figure=own_figure)
    return ax


def _side(masses: np.ndarray, drawn: np.ndarray) -> _Side:
    """Stack the blocks of the drawn types, with gaps between them."""
    types = np.flatnonzero(drawn)
    heights = masses[types]
    gap = min(0.04, 0.5 / len(types))
    return _Side(types, np.cumsum(heights + gap) - heights - gap, heights)


def _draw_bands(ax: Axes, found: TransitionTable, shares: np.ndarray, sides: Sequence[_Side]) -> None:
    """Draw the bands, in each block in the order of the types at its other end."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    source, target = sides
    shares = shares[np.ix_(source.types, target.types)]
    starts = source.tops[:, None] + np.cumsum(shares, axis=1) - shares
    ends = target.tops + np.cumsum(shares, axis=0) - shares
    left, right = _BLOCK, 1 - _BLOCK
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    for row, column in zip(*np.nonzero(shares), strict=True):
        thick, y0, y1 = shares[row, column], starts[row, column], ends[row, column]
        there = [(left, y0), (0.5, y0), (0.5, y1), (right, y1)]
        back = [(right, y1 + thick), (0.5, y1 + thick), (0.5, y0 + thick), (left, y0 + thick)]
        color = found.colors[found.rows[source.types[row]]]
        ax.add_patch(PathPatch(Path([*there, *back, (left, y0)], codes), facecolor=color, alpha=0.5, linewidth=0))


def _draw_blocks(ax: Axes, side: _Side, names: Sequence[str], found: TransitionTable, *, left: bool) -> None:
    """Draw the blocks of one side and, outside of them, their names, with a line where a name had to give way."""
    from matplotlib import rcParams
    from matplotlib.patches import Rectangle

    edge, end, text_at = (0.0, -0.03, -0.04) if left else (1.0, 1.03, 1.04)
    height = ax.get_ylim()[0]
    line = _LINE * rcParams["font.size"] * ax.figure.dpi / 72 * height / ax.bbox.height
    centres = side.tops + side.heights / 2
    for place, centre, at in zip(range(len(centres)), centres, spread(centres, line, height), strict=True):
        name, share = names[side.types[place]], side.heights[place]
        corner = (edge if left else edge - _BLOCK, side.tops[place])
        ax.add_patch(Rectangle(corner, _BLOCK, share, facecolor=found.colors[name], linewidth=0))
        ax.plot([edge, end], [centre, at], color="0.6", linewidth=0.6, clip_on=False)
        label = name if found.normalized else f"{name} ({_percent(share)})"
        ax.text(text_at, at, label, ha="right" if left else "left", va="center")


def spread(centres: np.ndarray, distance: float, height: float) -> np.ndarray:
    """Move ascending positions as little as possible so that neighbours keep a distance, within a height if it can be.

    With ``z_i = y_i - i · distance`` the condition is that ``z`` ascends: an isotonic regression.
    """
    from scipy.optimize import isotonic_regression

    steps = distance * np.arange(len(centres))
    ascending = isotonic_regression(centres - steps).x
    room = height - steps[-1]
    return (np.clip(ascending, 0, room) if room > 0 else np.full(len(centres), room / 2)) + steps


def _write_around(
    ax: Axes, found: TransitionTable, shares: np.ndarray, drawn: np.ndarray, min_share: float, title: str | None
) -> None:
    """Write the title, what the sides are, and how much is not drawn."""
    if title is None:
        alike = "every source type counts alike" if found.normalized else ""
        title = ", ".join(filter(None, [found.groupby, alike]))
    ax.set_title(title, pad=22)
    small = {"fontsize": "small", "color": "0.4", "transform": ax.transAxes}
    ax.text(0, 1.02, "source", ha="left", va="bottom", **small)
    ax.text(1, 1.02, "target", ha="right", va="bottom", **small)
    left_out = (shares > 0) & ~drawn
    if left_out.any():
        bands = "1 band" if left_out.sum() == 1 else f"{left_out.sum()} bands"
        note = (
            f"{bands} below {100 * min_share:g} % of the source not drawn, {_percent(shares[left_out].sum())} of "
            f"{'all shares' if found.normalized else 'the mass'}"
        )
        ax.text(0.5, -0.04, note, ha="center", va="top", **small)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "<1 %"
