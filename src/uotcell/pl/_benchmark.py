"""Scores of a benchmark between two yardsticks, and the rows that plots of benchmarks draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from uotcell.benchmark._scores import CEILING, METRICS
from uotcell.benchmark._statistics import MEAN_SHIFT, Interval, bootstrap_mean, by_condition, scaled

from ._figure import show_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from uotcell.benchmark import BenchmarkResult

KEYS = ["dataset", "condition", "group", "seed", "method", "family", "weighting"]
METRIC_LABELS = {
    "sinkhorn_divergence": "Sinkhorn divergence (squared distance)",
    "mmd": "MMD (squared, no unit)",
    "energy_distance": "energy distance (distance)",
    "wasserstein_1d": "marginal Wasserstein distance (feature units)",
    "drug_signature_error": "drug signature error (feature units)",
    "mean_rmse": "RMSE of the means (feature units)",
    "mean_r2": "R² of the means",
    "variance_error": "relative error of the variances",
    "correlation_error": "RMSE of the correlations",
    "classifier_auc": "AUC of a classifier",
    "discrimination_rank": "discrimination rank",
    "survivor_divergence": "survivor divergence (squared distance)",
    "map_error": "map error (L2-UVP, %)",
}
_COLORS = {"UOT": "#c1462c", "OT": "#3b6ea8", "": "0.45"}  # unbalanced, balanced, neither
_NAMED_SPAN = 4.0  # on wider axes the names of 0 and 1 would meet; the label of the axis has them


def benchmark(
    result: BenchmarkResult | pd.DataFrame,
    *,
    metric: str = "sinkhorn_divergence",
    weighting: str = "unweighted",
    dataset: str | None = None,
    limits: tuple[float, float] = (-2.0, 1.5),
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Draw how far every method gets from the mean shift, at 0, to the ceiling of other treated cells, at 1.

    One row per method, the best median on top, with a point for every condition: its score averaged over seeds, less
    that of the mean shift, over what the ceiling gains on the mean shift. The diamond is the mean over conditions with
    its 95 % bootstrap interval, both also written at the right; the bar is the median. These are the numbers of
    :meth:`BenchmarkResult.to_markdown <uotcell.benchmark.BenchmarkResult.to_markdown>`, which also leaves out
    conditions in which the ceiling is less than a tenth better than the mean shift.

    Parameters
    ----------
    result
        Result of a benchmark, or its ``families`` or rows of it. Not modified.
    metric
        Column of the score.
    weighting
        ``"unweighted"`` or ``"weighted"`` by the mass that the coupling leaves to a cell.
    dataset
        Data set to draw; not needed if there is only one.
    limits
        Scaled scores outside are drawn as arrows at the border and counted in the label of the axis.
    ax
        Axes to draw in; a new figure if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes, whether shown or not.

    Examples
    --------
    >>> import tempfile, uotcell as uc
    >>> result = uc.tl.benchmark_perturbation(
    ...     uc.datasets.reprogramming(), "day", 10.0, methods=(), tau_grid=(1.0,), seeds=1,
    ...     conditions=[11.0], out=tempfile.mkdtemp(), client="synchronous", progress=False,
    ... )
    >>> len(uc.pl.benchmark(result, weighting="weighted", show=False).get_yticklabels())
    5
    """
    from matplotlib import pyplot as plt

    low, high = limits
    if not (low < 0 and high > 1):
        raise ValueError(f"Expected `limits` to hold 0 and 1 between them, found {limits}.")
    rows = benchmark_rows(result, dataset=dataset, metric=metric, weighting=weighting, metrics=METRICS)
    values = by_condition(rows, metric)
    table = _scaled(values, metric)

    own_figure = ax is None
    if own_figure:
        ax = plt.figure(figsize=(7.0, 1.7 + 0.34 * table.shape[1]), layout="constrained").add_subplot()
    ax.axvline(0, color="0.6", linewidth=1, linestyle="--", zorder=0)
    ax.axvline(1, color="0.6", linewidth=1, linestyle="--", zorder=0)
    for place, name in enumerate(table):
        _draw_method(ax, place, table[name].to_numpy(), (low, high), _COLORS[_kind(name)])
    _write_beside(ax, -0.75, "mean [95 % interval]")
    margin = 0.015 * (high - low)  # for the arrows
    ax.set(xlim=(low - margin, high + margin), ylim=(table.shape[1] - 0.5, -0.5))
    ax.set_yticks(range(table.shape[1]), list(table))
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if high - low <= _NAMED_SPAN:
        ticks = np.arange(np.ceil(2 * low), np.floor(2 * high) + 1) / 2
        names = {0.0: "mean shift", 1.0: "ceiling"}
        ax.set_xticks(ticks, [_minus(f"{tick:g}\n{names.get(tick, ' ')}") for tick in ticks])
    ax.set_xlabel(_label(table, metric, weighting, (low, high)))
    ax.set_title(f"{rows['dataset'].iloc[0]}, {len(table)} of {len(values)} conditions", loc="left", pad=26)
    _legend(ax)
    show_figure(ax, show=show, own_figure=own_figure)
    return ax


def benchmark_rows(
    result: BenchmarkResult | pd.DataFrame,
    *,
    dataset: str | None,
    metric: str,
    weighting: str,
    metrics: Sequence[str] = tuple(METRIC_LABELS),
) -> pd.DataFrame:
    """Rows of one data set and weighting.

    Parameters
    ----------
    result
        Result of a benchmark or its ``families``.
    dataset, metric, weighting
        What is drawn; without a `dataset`, the only one.
    metrics
        Measures that can be drawn.

    Returns
    -------
    The rows, with a group that is never missing.
    """
    families = result if isinstance(result, pd.DataFrame) else getattr(result, "families", None)
    if families is None:
        raise TypeError(
            f"Expected `result` to be a BenchmarkResult or its `families`, found {type(result).__name__}. "
            "Run `uc.tl.benchmark_perturbation(...)` first."
        )
    if missing := [key for key in KEYS if key not in families]:
        raise KeyError(
            f"Expected `result` to have columns {KEYS}, found none of the name {missing}. "
            "Give a BenchmarkResult or its `families`."
        )
    datasets = families["dataset"].unique().tolist()
    if dataset is None and len(datasets) == 1:
        dataset = datasets[0]
    drawable = [name for name in metrics if name in families and families[name].notna().any()]
    given = {
        "dataset": (dataset, datasets),
        "metric": (metric, drawable),
        "weighting": (weighting, families["weighting"].unique().tolist()),
    }
    for name, (value, known) in given.items():
        if value not in known:
            raise ValueError(f"Expected `{name}` to be one of {known}, found {value!r}.")
    rows = families[(families["dataset"] == dataset) & (families["weighting"] == weighting)]
    if rows.duplicated(KEYS).any():
        raise ValueError(f"Expected one row for every {KEYS}, found several. Draw one benchmark at a time.")
    # Read from a file, the group of data without groups is missing, and groupby would drop it.
    return rows.assign(group=rows["group"].astype(object).fillna(""))


def _scaled(values: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Scaled scores, best median first, without the families that scale, ``(n_conditions, n_families)``."""
    ends = [MEAN_SHIFT, CEILING]
    if missing := [name for name in ends if name not in values or values[name].isna().all()]:
        raise ValueError(f"Expected families with {metric!r} to scale by, found no {missing}, only {list(values)}.")
    table = scaled(values, metric).drop(columns=ends)
    if table.isna().all(axis=None):
        raise ValueError(
            f"Expected a condition in which the ceiling is better than the mean shift in {metric!r}, and a family to "
            f"compare, found none among {len(values)} conditions and {list(values)}. Choose another `metric`."
        )
    return table[table.median().sort_values(ascending=False, kind="stable").index]


def _draw_method(ax: Axes, place: int, values: np.ndarray, limits: tuple[float, float], color: str) -> None:
    """Draw the conditions of one method, their mean with its interval, and their median; write the mean."""
    low, high = limits
    # Multiples of the golden ratio spread evenly, however many there are, and keep a condition at one height.
    heights = place + 0.56 * ((np.arange(len(values)) * 0.618034) % 1 - 0.5)
    inside = (values >= low) & (values <= high)
    ax.scatter(values[inside], heights[inside], s=14, color=color, linewidths=0, alpha=0.4, zorder=2)
    for n_outside, edge, marker, side in (((values < low).sum(), low, "<", 1), ((values > high).sum(), high, ">", -1)):
        if n_outside:
            ax.plot(edge, place, marker, color=color, markersize=6)
            beside = {"xytext": (6 * side, 0), "textcoords": "offset points", "ha": "left" if side > 0 else "right"}
            ax.annotate(f"{n_outside}", (edge, place), va="center", fontsize="small", color=color, **beside)
    found = bootstrap_mean(values)
    if found.n:
        median = np.nanmedian(values)
        if low <= median <= high:
            ax.plot([median, median], [place - 0.36, place + 0.36], color=color, linewidth=1.6, zorder=3)
        if found.high > low and found.low < high:
            ends = np.clip([found.low, found.high], low, high)
            ax.plot(ends, [place, place], color="black", linewidth=1.6, zorder=4, solid_capstyle="butt")
        if low <= found.mean <= high:
            ax.plot(found.mean, place, "D", color=color, markersize=6.5, markeredgecolor="black", zorder=5)
    _write_beside(ax, place, _written(found, len(values)))


def _write_beside(ax: Axes, place: float, text: str) -> None:
    """Write to the right of the axes."""
    from matplotlib.transforms import offset_copy

    beside = offset_copy(ax.get_yaxis_transform(), ax.figure, x=12, units="points")
    ax.text(1.0, place, text, transform=beside, va="center", fontsize="small")


def _written(found: Interval, n_conditions: int) -> str:
    """Mean and interval as in the report, and over how many conditions if some have no score."""
    if found.n == 0:
        return "no score"
    missing = f", n = {found.n}" if found.n < n_conditions else ""
    return _minus(f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]{missing}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _kind(family: str) -> str:
    """``"UOT"``, ``"OT"`` or nothing for baselines without a coupling."""
    words = family.replace("-", " ").split()
    return next((kind for kind in ("UOT", "OT") if kind in words), "")


def _label(table: pd.DataFrame, metric: str, weighting: str, limits: tuple[float, float]) -> str:
    """Label of the axis: what is scaled, and what is not in sight."""
    name = METRIC_LABELS[metric].split(" (")[0]
    scores = table.to_numpy()
    counts = (
        (int((scores < limits[0]).sum()), f"below {limits[0]:g}"),
        (int((scores > limits[1]).sum()), f"above {limits[1]:g}"),
    )
    lines = [f"scaled {name}, {weighting} (larger is better)"]
    if limits[1] - limits[0] > _NAMED_SPAN:
        lines.append("0: mean shift, 1: ceiling")
    if beyond := " and ".join(_minus(f"{n} {where}") for n, where in counts if n):
        lines.append(f"arrows: {beyond}, of {np.isfinite(scores).sum()} points")
    return "\n".join(lines)


def _legend(ax: Axes) -> None:
    """Say above the axes what the marks are."""
    from matplotlib.lines import Line2D

    grey = {"color": "0.45", "linestyle": ""}
    handles = [
        Line2D([], [], marker="o", markersize=4, alpha=0.6, markeredgewidth=0, label="condition", **grey),
        Line2D([], [], marker="|", markersize=10, markeredgewidth=1.6, label="median", **grey),
        Line2D([], [], color="black", marker="D", markerfacecolor="0.45", label="mean, 95 % interval"),
    ]
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2, "borderpad": 0.2}
    ax.legend(handles=handles, frameon=False, ncols=3, fontsize="small", handletextpad=0.4, **place)
