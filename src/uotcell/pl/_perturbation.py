"""Unbalanced against balanced transport, condition by condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from uotcell.benchmark._scores import LARGER_IS_BETTER
from uotcell.benchmark._selection import family_names
from uotcell.benchmark._statistics import by_condition, compare

from ._benchmark import METRIC_LABELS, benchmark_rows
from ._figure import show_figure, widen_for_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from uotcell.benchmark import BenchmarkResult

_CONDITION = ["condition", "group"]
_SCALES = ("log", "linear")
_LOG_SPAN = 5.0
# With more conditions nobody finds one in a legend.
_MAX_LEGEND = 36
_LEGEND_ROWS = 18
# More conditions than the style has colours: as many hues at several lightnesses and chromas, each with a marker.
_N_HUES = 12
_TIERS = ((0.64, 0.19, "o"), (0.43, 0.14, "s"), (0.80, 0.13, "^"))

_OKLAB_TO_CONES = np.array(
    [[0.3963377774, 0.2158037573], [-0.1055613458, -0.0638541728], [-0.0894841775, -1.2914855480]]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


class _Pairs(NamedTuple):
    """Scores of one family, ``x``, against another, ``y``: by run and by condition, both without missing scores."""

    runs: pd.DataFrame
    means: pd.DataFrame
    n_runs: int

    def scores(self) -> np.ndarray:
        """All that is drawn."""
        return np.concatenate([self.runs[["x", "y"]].to_numpy(), self.means[["x", "y"]].to_numpy()])


def perturbation_scatter(
    result: BenchmarkResult | pd.DataFrame,
    *,
    method: str = "monge_gap",
    metric: str = "sinkhorn_divergence",
    weighting: str = "unweighted",
    dataset: str | None = None,
    scale: Literal["log", "linear"] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Draw the scores of a method with unbalanced against those with balanced transport, as Eyring et al. 2024, Fig. 4.

    Across is the balanced method, τ = 1, and up the method at the τ that validation cells chose. A condition has one
    colour: a small point for every seed and a large one for their mean. Below the diagonal (above it for a score that
    is better when larger) unbalanced transport is better; the title counts the means there as the report does.

    Parameters
    ----------
    result
        Result of a benchmark, or its ``families`` or rows of it. Not modified.
    method
        Method, by its name in the benchmark; ``"entropic"`` for the couplings without a network.
    metric
        Column of the score.
    weighting
        ``"unweighted"`` or ``"weighted"`` by the mass that the coupling leaves to a cell.
    dataset
        Data set to draw; not needed if there is only one.
    scale
        Both axes, ``"log"`` or ``"linear"``; if None, log where all scores are positive and span more than a factor of
        five.
    ax
        Axes to draw in; a new figure if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes, whether shown or not. Their legend, of up to 36 conditions, is to the right of them.

    Examples
    --------
    >>> import tempfile, uotcell as uc
    >>> result = uc.tl.benchmark_perturbation(
    ...     uc.datasets.reprogramming(), "day", 10.0, methods=(), tau_grid=(1.0,), seeds=1,
    ...     conditions=[11.0], out=tempfile.mkdtemp(), client="synchronous", progress=False,
    ... )
    >>> ax = uc.pl.perturbation_scatter(result, method="entropic", show=False)
    >>> ax.get_xlabel().splitlines()
    ['entropic OT, balanced', 'Sinkhorn divergence (squared distance)']
    """
    from matplotlib import pyplot as plt

    rows = benchmark_rows(result, dataset=dataset, metric=metric, weighting=weighting)
    families = _families(rows, method)
    pairs = _pairs(rows, families, metric)
    scale = _scale(pairs, scale)

    own_figure = ax is None
    if own_figure:
        figure = plt.figure(figsize=(5.4, 5.7))
        figure.subplots_adjust(left=0.17, right=0.97, bottom=0.12, top=0.88)
        ax = figure.add_subplot()
    ax.set(xscale=scale, yscale=scale)
    limits = _limits(pairs.scores(), scale)
    ax.plot(limits, limits, color="0.6", linewidth=1, linestyle="--", zorder=1)
    _draw_points(ax, pairs)
    ax.set(xlim=limits, ylim=limits, box_aspect=1)
    if scale == "log" and limits[1] > _LOG_SPAN * limits[0]:
        _plain_ticks(ax, limits)
    _write_labels(ax, pairs, families, metric, str(rows["dataset"].iloc[0]), weighting)
    if len(pairs.means) <= _MAX_LEGEND:
        columns = -(-len(pairs.means) // _LEGEND_ROWS)
        place = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "borderaxespad": 0}
        ax.legend(frameon=False, ncols=columns, fontsize="small", handletextpad=0.2, columnspacing=1.0, **place)
    if own_figure:
        ax.apply_aspect()
        widen_for_legend(ax)
    show_figure(ax, show=show, own_figure=own_figure)
    return ax


def _families(rows: pd.DataFrame, method: str) -> tuple[str, str]:
    """Names of the balanced and of the tuned family."""
    there = set(rows["family"])
    known = [name for name in rows["method"].unique() if there.issuperset(family_names(name))]
    if method not in known:
        raise ValueError(f"Expected `method` to be one of {known}, found {method!r}.")
    return family_names(method)


def _pairs(rows: pd.DataFrame, families: tuple[str, str], metric: str) -> _Pairs:
    """Scores of both families by run, and their means over seeds as the report takes them."""
    some = rows[rows["family"].isin(families)]
    runs = some.set_index([*_CONDITION, "seed", "family"])[metric].unstack("family")
    tables = [table[list(families)].set_axis(["x", "y"], axis=1) for table in (runs, by_condition(some, metric))]
    drawn, means = (table[np.isfinite(table).all(axis=1)].reset_index() for table in tables)
    if means.empty:
        raise ValueError(
            f"Expected a condition in which both {' and '.join(families)} have {metric!r}, found none. "
            "Choose another `method` or `metric`."
        )
    return _Pairs(drawn, means, n_runs=len(runs))


def _scale(pairs: _Pairs, scale: str | None) -> str:
    """Scale of the axes, the one asked for or the one that suits."""
    if scale not in (None, *_SCALES):
        raise ValueError(f"Expected `scale` to be one of {list(_SCALES)} or None, found {scale!r}.")
    scores = pairs.scores()
    if scale == "log" and scores.min() <= 0:
        raise ValueError(f"Expected positive scores for `scale`='log', found {scores.min():.3g}. Use 'linear'.")
    if scale is None:
        return "log" if scores.min() > 0 and scores.max() > _LOG_SPAN * scores.min() else "linear"
    return scale


def _limits(scores: np.ndarray, scale: str) -> tuple[float, float]:
    """Return the ends of both axes, a little beyond all scores."""
    low, high = scores.min(), scores.max()
    if scale == "log":
        margin = max((high / low) ** 0.05, 1.05)
        return low / margin, high * margin
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _plain_ticks(ax: Axes, limits: tuple[float, float]) -> None:
    """Write the numbers of log axes in full, also 2 and 5 of every decade where decades are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    subs = (1.0, 2.0, 5.0) if limits[1] < 200 * limits[0] else (1.0,)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        axis.set_minor_formatter(NullFormatter())


def _draw_points(ax: Axes, pairs: _Pairs) -> None:
    """Draw the runs, and above them the mean of each condition with its name."""
    runs = dict(iter(pairs.runs.groupby(_CONDITION)))
    for (_, mean), (color, marker) in zip(pairs.means.iterrows(), _styles(len(pairs.means)), strict=True):
        condition, group = mean[_CONDITION]
        own = runs.get((condition, group), pairs.runs[:0])
        ax.scatter(own["x"], own["y"], s=9, marker=marker, color=[color], alpha=0.45, linewidths=0, zorder=2)
        name = f"{condition} ({group})" if group else str(condition)
        style = {"marker": marker, "color": [color], "edgecolors": "white", "linewidths": 0.6, "zorder": 3}
        ax.scatter(mean["x"], mean["y"], s=52, label=name, **style)


def _styles(n_styles: int) -> list[tuple[np.ndarray | str, str]]:
    """Colour and marker of every condition, those of the style if it has enough."""
    from matplotlib import pyplot as plt

    cycle = plt.rcParams["axes.prop_cycle"].by_key().get("color", [])
    if n_styles <= len(cycle):
        return [(color, "o") for color in cycle[:n_styles]]
    styles = []
    for i in range(n_styles):
        lightness, chroma, marker = _TIERS[i // _N_HUES % len(_TIERS)]
        # Five and twelve have no common divisor: all hues come, and those that follow each other differ.
        styles.append((_oklch(lightness, chroma, 5 * i / _N_HUES), marker))
    return styles


def _oklch(lightness: float, chroma: float, turn: float) -> np.ndarray:
    """Colour in sRGB of a hue, in turns, at a perceived lightness and chroma (Ottosson 2020), ``(3,)``."""
    angle = 2 * np.pi * turn
    cones = lightness + chroma * _OKLAB_TO_CONES @ [np.cos(angle), np.sin(angle)]
    linear = np.clip(_CONES_TO_RGB @ cones**3, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _write_labels(
    ax: Axes, pairs: _Pairs, families: tuple[str, str], metric: str, dataset: str, weighting: str
) -> None:
    """Name the axes and say what the diagonal parts."""
    balanced, tuned = families
    label = METRIC_LABELS[metric]
    ax.set(xlabel=f"{balanced}, balanced\n{label}", ylabel=f"{tuned}, tuned τ\n{label}")
    side = "above" if metric in LARGER_IS_BETTER else "below"
    won = compare(pairs.means["y"], pairs.means["x"], metric)
    lines = [f"{side} the diagonal: {tuned} better, {won.wins} of {won.n} conditions"]
    if left_out := pairs.n_runs - len(pairs.runs):
        lines.append(f"{left_out} of {pairs.n_runs} runs not drawn: a score is missing")
    ax.set_title(f"{dataset}, {weighting}", loc="left", pad=8 + 12 * len(lines))
    ax.annotate(
        "\n".join(lines), (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize="small"
    )
