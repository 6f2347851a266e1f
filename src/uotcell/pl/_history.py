"""Training curves of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._figure import show_figure, widen_for_legend

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 4)))


def history(
    adata: AnnData,
    *,
    key: str = "uot",
    pairs: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Draw how a fit went: the validation divergence of every pair by iteration, and faintly the training loss.

    The validation divergence is the curve to read: it should fall below the dashed levels of the reference maps; its
    best iteration, the one that is kept, is marked. The loss of a minimax game such as the ICNN dual need not fall.
    One colour belongs to one pair. Run :func:`uotcell.tl.fit_trajectory` or :func:`uotcell.tl.fit_perturbation` first.

    Parameters
    ----------
    adata
        Annotated data with ``.uns[key]["history"]``. Not modified.
    key
        The `key_added` of the fit.
    pairs
        Labels of the pairs to draw, e.g. ``["10.0_10.5"]`` or ``["panobinostat"]``; all if None.
    ax
        Axes to draw in; a new figure if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes of the validation divergence, whether shown or not. The loss is on a twin of them.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> uc.pl.history(adata, show=False).get_xlabel()
    'iteration'
    """
    from matplotlib import pyplot as plt

    curves = _curves(adata, key, pairs)
    own_figure = ax is None
    if own_figure:
        ax = plt.figure().add_subplot()
    loss_ax = ax.twinx()
    cycle = plt.rcParams["axes.prop_cycle"].by_key().get("color", ["black"])
    names = list(dict.fromkeys(name for curve in curves.values() for name in curve.get("baseline", {})))
    dashes = {name: _DASHES[i % len(_DASHES)] for i, name in enumerate(names)}
    for i, curve in enumerate(curves.values()):
        color = cycle[i % len(cycle)]
        loss_ax.plot(curve["iteration"], curve["loss"], color=color, linewidth=0.8, alpha=0.3)
        _draw_divergence(ax, curve, color, dashes)

    # The twin is created on top; the validation curves belong there.
    ax.set_zorder(loss_ax.get_zorder() + 1)
    ax.patch.set_visible(False)
    drawn = np.concatenate([np.ravel(line.get_ydata()) for line in ax.lines])
    if (drawn[np.isfinite(drawn)] > 0).all():
        ax.set_yscale("log")
    ax.set(xlabel="iteration", ylabel="validation divergence")
    loss_ax.set_ylabel("training loss (faint)", color="0.5")
    loss_ax.tick_params(axis="y", colors="0.5")
    _legend(ax, list(curves), cycle, dashes)
    if own_figure:
        widen_for_legend(ax)
    show_figure(ax, show=show, own_figure=own_figure)
    return ax


def _curves(adata: AnnData, key: str, pairs: str | Sequence[str] | None) -> dict[str, Mapping]:
    """Curves of the chosen pairs by label."""
    remedy = f"Run `uc.tl.fit_trajectory` or `uc.tl.fit_perturbation(adata, ..., key_added={key!r})` first."
    if "history" not in adata.uns.get(key, {}):
        raise KeyError(f"Expected `adata.uns` to hold the history of {key!r}, found {sorted(adata.uns)}. {remedy}")
    stored = adata.uns[key]["history"]
    if pairs is None:
        pairs = list(stored)
    elif isinstance(pairs, str):
        pairs = [pairs]
    unknown = [pair for pair in pairs if pair not in stored]
    if unknown or not pairs:
        raise KeyError(f"Expected `pairs` to be a list from {list(stored)}, found {list(unknown or pairs)}. {remedy}")
    return {pair: stored[pair] for pair in pairs}


def _draw_divergence(ax: Axes, curve: Mapping, color: str, dashes: Mapping) -> None:
    """Draw the validation divergence of one pair, its best iteration and its reference maps."""
    iteration, divergence = np.atleast_1d(curve["valid_iteration"]), np.atleast_1d(curve["valid_divergence"])
    ax.plot(iteration, divergence, color=color, linewidth=2)
    best = np.flatnonzero(iteration == curve["best_iteration"])
    ax.plot(iteration[best], divergence[best], color=color, marker="o", markersize=8, markeredgecolor="white", zorder=3)
    for name, level in curve.get("baseline", {}).items():
        ax.axhline(level, color=color, linewidth=1.2, linestyle=dashes[name])


def _legend(ax: Axes, pairs: Sequence[str], cycle: Sequence[str], dashes: Mapping) -> None:
    """Name the pairs by colour and, in grey, what the marker and the dashes are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=cycle[i % len(cycle)], linewidth=2, label=pair) for i, pair in enumerate(pairs)]
    handles.append(Line2D([], [], color="0.4", marker="o", linestyle="", markeredgecolor="white", label="best"))
    handles += [Line2D([], [], color="0.4", linewidth=1.2, linestyle=dash, label=name) for name, dash in dashes.items()]
    # To the right of the ticks and label of the loss.
    ax.legend(handles=handles, frameon=False, loc="center left", bbox_to_anchor=(1.18, 0.5))
