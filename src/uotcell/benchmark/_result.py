"""Scores of a benchmark as tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from uotcell import metrics
from uotcell.benchmark._report import markdown
from uotcell.benchmark._scores import METRICS, PROPERTIES, TRUTH_METRICS
from uotcell.benchmark._selection import select_families
from uotcell.benchmark._store import read_json

KEYS = ["dataset", "condition", "group", "seed", "method", "tau", "split", "weighting"]


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchmarkResult:
    """What a benchmark found.

    Attributes
    ----------
    scores
        One row per data set, condition, group, seed, method, τ, split and weighting, with a column per measure.
    families
        The same for the test cells of what is compared: every method balanced and at its tuned τ, the baselines and
        the ceiling. A row per data set, condition, group, seed, family and weighting.
    config
        The settings.
    runs
        Command, machine, number of tasks and seconds of every run that contributed.
    seconds
        Mean seconds a task of each method took to fit and to score, columns ``fit`` and ``score``.
    devices
        What computed.
    """

    scores: pd.DataFrame
    families: pd.DataFrame
    config: dict
    runs: list[dict]
    seconds: pd.DataFrame
    devices: tuple[str, ...]

    @classmethod
    def load(cls, out: str | Path, *, tune: str | None = None) -> BenchmarkResult:
        """Read the folder of a benchmark, and write ``results.csv`` and ``perturbation.md`` into it.

        Parameters
        ----------
        out
            The folder.
        tune
            ``"condition"`` or ``"dataset"``: what τ is chosen for. By default conditions, if half of them have at least
            100 scored validation cells, and otherwise data sets.

        Returns
        -------
        The result of all tasks that have finished.
        """
        out = Path(out)
        tasks = [read_json(path) for path in sorted((out / "tasks").glob("[!.]*.json"))]
        if not tasks:
            raise FileNotFoundError(f"Expected finished tasks in {out / 'tasks'}, found none. Run a benchmark first.")
        scores = _scores(tasks)
        timed = pd.DataFrame(
            {"method": task["method"], "fit": task["fit_seconds"], "score": task["score_seconds"]} for task in tasks
        )
        result = cls(
            scores=scores.drop(columns="halves"),
            families=select_families(scores, tune=tune),
            config=read_json(out / "config.json"),
            runs=read_json(out / "runs.json")["runs"] if (out / "runs.json").exists() else [],
            seconds=timed.groupby("method").mean(),
            devices=tuple(sorted({task["device"] for task in tasks})),
        )
        result.to_csv(out / "results.csv")
        (out / "perturbation.md").write_text(result.to_markdown(), encoding="utf-8")
        return result

    def to_csv(self, path: str | Path) -> None:
        """Write ``scores``."""
        self.scores.to_csv(path, index=False, float_format="%.6g")

    def to_markdown(self) -> str:
        """Return the report."""
        return markdown(self)


def _scores(tasks: list[dict]) -> pd.DataFrame:
    """Rows of all tasks, with the ranks that only all conditions together give."""
    rows = pd.DataFrame([row for task in tasks for row in task["rows"]])
    rows = rows.reindex(
        columns=[*KEYS, "n_score", "score_epsilon", *METRICS, *PROPERTIES, *TRUTH_METRICS, "error", "mean", "halves"]
    )
    rows["error"] = rows["error"].fillna("")
    observed = {
        (
            task["rows"][0]["dataset"],
            task["rows"][0]["seed"],
            *(mean[key] for key in ("group", "condition", "split")),
        ): (mean["mean"])
        for task in tasks
        for mean in task["observed"]
    }
    together = ["dataset", "group", "seed", "method", "tau", "split", "weighting"]
    for (dataset, group, seed, _, _, split, _), some in rows[rows["error"] == ""].groupby(together, dropna=False):
        if len(some) > 1:
            targets = [observed[dataset, seed, group, condition, split] for condition in some["condition"]]
            ranks = metrics.discrimination_rank(np.array(some["mean"].tolist()), np.array(targets))
            rows.loc[some.index, "discrimination_rank"] = ranks
    return rows.drop(columns="mean").sort_values(KEYS, ignore_index=True)
