"""The report of a benchmark as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from uotcell.benchmark._scores import CEILING, METRICS, WEIGHTINGS
from uotcell.benchmark._selection import BASELINE_FAMILIES, best_baseline, family_names
from uotcell.benchmark._statistics import (
    EFFECTS,
    MEAN_SHIFT,
    bootstrap_mean,
    by_condition,
    compare,
    difference_by_seed,
    effect_sizes,
    scaled,
)

if TYPE_CHECKING:
    from uotcell.benchmark._result import BenchmarkResult

PRIMARY = "sinkhorn_divergence"
READING = """\
Every score compares predicted with observed treated cells that no map was fitted or tuned on, in equal numbers for
every row of a table. *OT* rows are balanced, τ = 1; for *UOT* rows τ is the largest of the whole grid, 1 included,
that is within one standard error of the best in Sinkhorn divergence of validation cells: over conditions, or over
halves of the cells where τ is tuned for each condition. *Unweighted*: all pushed
cells count the same. *Weighted*: they count by the mass the coupling leaves them; the observed cells always count the
same, so that one yardstick measures every τ. *Scaled*: 0 is the mean shift and 1 the ceiling, other treated cells of
the same condition. Scores are averaged over seeds, scaled, and averaged over conditions, with the 95 % bootstrap
interval over conditions; beside it the median. Conditions in which the ceiling is less than a tenth better than the
mean shift cannot be scaled and are left out of these columns. With few cells scored, a map that contracts towards the
mean can pass the ceiling, whose cells scatter as real ones do: see classifier_auc and variance_error. *Wins* count
conditions, *change* is the median relative difference, *p* is Wilcoxon's signed-rank test over conditions, two-sided
and not corrected for the number of tests. *± over seeds* is the difference of the means over conditions: its mean and
standard deviation over seeds, whose splits share cells."""


def markdown(result: BenchmarkResult) -> str:
    """Return the report."""
    lines = ["# Perturbation benchmark", "", READING]
    for dataset, families in result.families.groupby("dataset", sort=False):
        lines += ["", f"## {dataset}", "", _describe(result, dataset, families)]
        for title, table in _tables(result, dataset, families):
            lines += ["", f"### {title}", "", *table]
    return "\n".join([*lines, "", "## How it was run", "", *_provenance(result), ""])


def _tables(result: BenchmarkResult, dataset: str, families: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    learned = [name for method in result.config["methods"] for name in family_names(method)]
    names = [*learned, *reversed(BASELINE_FAMILIES), CEILING]
    names = [name for name in names if (families["family"] == name).any()]
    sides = {weighting: families[families["weighting"] == weighting] for weighting in WEIGHTINGS}
    divergences = {weighting: by_condition(side, PRIMARY) for weighting, side in sides.items()}
    yield "Sinkhorn divergence", _divergence_table(sides, divergences, names)
    yield "Pairwise", _pair_table(result, dataset, sides, divergences, learned)
    yield "By size of the effect, scaled Sinkhorn divergence", _effect_table(divergences, names)
    yield "All measures", _measure_table(sides, names)
    if families["survivor_divergence"].notna().any():
        for weighting, side in sides.items():
            yield f"Against the truth, τ tuned on {weighting} scores", _truth_table(side, names)


def _divergence_table(sides: dict, divergences: dict, names: list[str]) -> list[str]:
    columns = ["", "τ", "mass", "effective cells"]
    for weighting in WEIGHTINGS:
        columns += [weighting, "scaled", "median", "beats mean shift"]
    rows = []
    for name in names:
        own = sides["unweighted"][sides["unweighted"]["family"] == name]
        row = [name, _taus(own), _number(own["transported_mass"].mean()), _number(own["effective_sample_size"].mean())]
        for weighting in WEIGHTINGS:
            values = divergences[weighting]
            won = compare(values[name], values[MEAN_SHIFT], PRIMARY)
            wins = "" if name == MEAN_SHIFT else f"{won.wins} of {won.n}"
            between = scaled(values, PRIMARY)[name]
            row += [_number(values[name].mean()), _interval(between), _number(_median(between)), wins]
        rows.append(row)
    return [
        *_table(columns, rows),
        "",
        "Effective cells: share of the training controls that carry the map; τ: median.",
    ]


def _pair_table(result, dataset: str, sides: dict, divergences: dict, learned: list[str]) -> list[str]:
    pairs = [family_names(method)[::-1] for method in [*result.config["methods"], "entropic"]]
    best = {weighting: best_baseline(result.scores, result.families, dataset, weighting) for weighting in WEIGHTINGS}
    rows = []
    for ours, theirs in [*pairs, *((name, None) for name in learned)]:
        row = [ours, theirs or "best baseline"]
        for weighting in WEIGHTINGS:
            values = divergences[weighting]
            found = compare(values[ours], values[theirs or best[weighting]], PRIMARY)
            seeds = difference_by_seed(sides[weighting], PRIMARY, ours, theirs or best[weighting])
            row += [f"{found.wins} of {found.n}", f"{100 * found.change:+.1f} %", _number(found.p_value)]
            row.append(f"{seeds.mean():+.2g} ± {seeds.std():.2g}" if len(seeds) > 1 else "")
        rows.append(row)
    what = ("wins", "change", "p", "± over seeds")
    columns = ["", "against"] + [f"{weighting} {column}" for weighting in WEIGHTINGS for column in what]
    named = ", ".join(f"{name} ({weighting})" for weighting, name in best.items())
    return [*_table(columns, rows), "", f"The best baseline on validation cells: {named}."]


def _effect_table(divergences: dict, names: list[str]) -> list[str]:
    sizes = effect_sizes(divergences["unweighted"])
    columns, rows = [""] + [f"{size}, {w}" for w in WEIGHTINGS for size in EFFECTS], []
    tables = {weighting: scaled(values, PRIMARY) for weighting, values in divergences.items()}
    for name in names:
        cells = [table.loc[sizes[table.index] == s, name] for table in tables.values() for s in EFFECTS]
        rows.append([name, *(_interval(cell) for cell in cells)])
    can_scale = sizes[tables["unweighted"].index]
    counts = ", ".join(f"{(can_scale == size).sum()} of {(sizes == size).sum()} {size}" for size in EFFECTS)
    note = "Thirds of the conditions by the identity's divergence over the ceiling's; conditions that can be scaled:"
    return [*_table(columns, rows), "", f"{note} {counts}."]


def _measure_table(sides: dict, names: list[str]) -> list[str]:
    rows = []
    for weighting, side in sides.items():
        for metric in METRICS:
            values = by_condition(side, metric).reindex(columns=names)
            rows.append([f"{metric}, {weighting}", *(_number(values[name].mean()) for name in names)])
    note = "Means over seeds and conditions. Smaller is better, apart from mean_r2; 0.5 is best for classifier_auc."
    return [*_table(["", *names], rows), "", note]


def _truth_table(side: pd.DataFrame, names: list[str]) -> list[str]:
    divergence, error = (by_condition(side, metric) for metric in ("survivor_divergence", "map_error"))
    ranks = by_condition(side, "weight_spearman")
    rows = []
    for name in names:
        if name == CEILING:
            continue
        twin = name.replace("UOT", "OT", 1)
        won = compare(divergence[name], divergence[twin], "survivor_divergence")
        wins = f"{won.wins} of {won.n}" if twin != name and twin in divergence else ""
        medians = [_median(values[name]) for values in (divergence, error, ranks)]
        rows.append([name, *map(_number, medians), str(int(ranks[name].notna().sum())), wins])
    columns = ["", "survivor divergence", "map error %", "weight ρ", "conditions with weights", "wins against OT twin"]
    note = (
        "Medians over conditions. Survivor divergence: between images and true images of test controls drawn by their "
        "true survival. Map error: L2-UVP on these. Weight ρ: rank correlation of learned weights with true survival."
    )
    return [*_table(columns, rows), "", note]


def _describe(result: BenchmarkResult, dataset: str, families: pd.DataFrame) -> str:
    data = result.config["datasets"][dataset]
    tuned = "condition" if (families["tuned_for"] == "condition").any() else "data set"
    held_out = data["valid_fraction"], data["test_fraction"]
    shares = " / ".join(f"{100 * fraction:.0f} %" for fraction in (1 - sum(held_out), *held_out))
    rows = result.scores[result.scores["dataset"] == dataset]
    n_score = rows[rows["split"] == "test"]["n_score"]
    errors = rows[(rows["split"] == "test") & (rows["weighting"] == "unweighted")]
    failed = errors[(errors["error"] != "") | errors[PRIMARY].isna()]
    text = (
        f"{data['n_cells']:,} cells in {data['n_dims']} dimensions, {len(data['conditions'])} conditions, "
        f"{len(result.config['seeds'])} seeds; {shares} of the cells for training, validation and test, "
        f"{n_score.min()} to {n_score.max()} of each kind scored. τ was tuned for every {tuned}."
    )
    if len(failed):
        by = ", ".join(f"{n} of {m}" for m, n in failed["method"].value_counts().items())
        text += f" {len(failed)} of {len(errors)} maps do not exist or have no divergence ({by})."
    return text


def _provenance(result: BenchmarkResult) -> list[str]:
    config, lines = result.config, []
    for run in result.runs:
        machine = f"{run['processor']}, {run['cores']} cores, {run['platform']}"
        lines.append(f"- `{run['command']}`: {run['tasks']} tasks in {run['seconds']:.0f} s on {machine}")
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    settings = ", ".join(f"{key} = {config[key]}" for key in ("epsilon", "tau_grid", "batch_size", "n_iters"))
    lines += [f"- device: {', '.join(result.devices)}", f"- {versions}", f"- {settings}", ""]
    rows = [[name, *(f"{value:.1f}" for value in seconds)] for name, *seconds in result.seconds.itertuples()]
    return [*lines, *_table(["seconds per task", *result.seconds.columns], rows)]


def _median(values: pd.Series) -> float:
    values = values.dropna()
    return values.median() if len(values) else np.nan


def _taus(own: pd.DataFrame) -> str:
    return "" if own["tau"].isna().all() else f"{own['tau'].median():g}"


def _interval(values: pd.Series) -> str:
    found = bootstrap_mean(values)
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]" if found.n else ""


def _number(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.3g}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    columns = list(columns)
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *map(list, rows))]
