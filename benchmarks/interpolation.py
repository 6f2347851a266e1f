"""Leave one time point out of three time courses and predict it from its neighbours.

Run ``python benchmarks/interpolation.py`` (about ten minutes on two cores); it writes
``benchmarks/results/interpolation.md``.

Cells of the EMT and of the cardiomyocyte course are compared in their published embeddings, which have seen the point
that is left out; those of the hematopoiesis course in principal components refitted without it. One setting serves
all courses: ε = 0.01 of the mean cost, 1,000 steps, and τ of the source and of the target side as the command says. Its
default was chosen among nineteen pairs after a look at the same points, mostly by entropic interpolation, without a
network. That all cells train, and that both neighbours are moved to the time, was decided after a look at the
cardiomyocyte course.
"""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path

import pandas as pd

import uotcell as uc
from uotcell.methods import FlowMatching
from uotcell.train._device import describe_device

HIDDEN, N_ITERS, SEEDS = (128, 128, 128), 1_000, 5
TAU = (0.95, 0.96)
METHODS = {"flow": FlowMatching(hidden=HIDDEN, n_steps=None)}
COURSES = {
    "EMT": (uc.datasets.emt, "time", "X_embedding"),
    "iPSC to cardiomyocyte": (uc.datasets.ipsc_cardio, "day", "X_embedding"),
    "hematopoiesis (LARRY)": (uc.datasets.hematopoiesis, "day", None),
}
BARS = ("earlier point", "later point", "random coupling with growth", "random coupling")
METRICS = {"wasserstein": "W1", "sinkhorn_divergence": "Sinkhorn divergence"}
OURS, FLOOR = "flow UOT", "noise floor"


def markdown(frame: pd.DataFrame) -> str:
    """Turn a table of strings into markdown."""
    lines = ["| " + " | ".join(map(str, [frame.index.name or "", *frame.columns])) + " |"]
    lines.append("|" + "---|" * (1 + frame.shape[1]))
    return "\n".join(
        lines
        + ["| " + " | ".join([str(name), *row]) + " |" for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    )


def mean_and_spread(values: pd.Series) -> str:
    """Mean ± standard deviation."""
    return f"{values.mean():.3g} ± {values.std():.1g}"


def report(scores: pd.DataFrame) -> str:
    """All tables, and a word on every bar."""
    parts = []
    for metric, title in METRICS.items():
        parts.append(f"## {title}\n\nMean ± standard deviation over {scores['seed'].nunique()} seeds.")
        for course, rows in scores.groupby("course", sort=False):
            table = rows.pivot_table(index="prediction", columns="time", values=metric, aggfunc=mean_and_spread)
            table = table.reindex(rows["prediction"].unique())
            parts.append(f"### {course}\n\n{markdown(table)}")
        means = scores.pivot_table(index=["course", "time"], columns="prediction", values=metric)
        ratios = means.div(means[FLOOR], axis=0)
        per_course = ratios.groupby(level="course").mean().T
        per_course["all points"] = ratios.mean()
        per_course = per_course.reindex(scores["prediction"].unique())
        parts.append(
            f"### {title}, in units of the noise floor\n\nMean over the points of a course, and over all points.\n\n"
            + markdown(per_course.map(lambda v: f"{v:.3g}"))
        )
        verdicts = []
        for bar in BARS:
            lost = [f"{course}, {time:g}" for (course, time), row in means.iterrows() if not row[OURS] < row[bar]]
            better = "below" if ratios[OURS].mean() < ratios[bar].mean() else "not below"
            verdicts.append(
                f"- {OURS} is {better} *{bar}* in the mean over all points and below it at "
                f"{len(means) - len(lost)} of {len(means)}; not at: {'; '.join(lost) or 'none'}."
            )
        parts.append("\n".join(verdicts))
    return "\n\n".join(parts)


def main() -> None:
    """Run all courses and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--tau", type=float, nargs=2, default=TAU, metavar=("SOURCE", "TARGET"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "interpolation.md")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(exist_ok=True)
    tables = []
    for course, (load, time_key, use_rep) in COURSES.items():
        table = uc.tl.evaluate_interpolation(
            load(),
            time_key,
            use_rep=use_rep,
            methods=METHODS,
            tau=tuple(arguments.tau),
            n_iters=N_ITERS,
            seeds=arguments.seeds,
        )
        tables.append(table.assign(course=course))
    scores = pd.concat(tables)
    scores.to_csv(arguments.out.with_suffix(".csv"), index=False, float_format="%.5g")
    command = f"python benchmarks/interpolation.py --seeds {arguments.seeds} --tau {' '.join(map(str, arguments.tau))}"
    head = f"""# Interpolation in time

`{command}` on {describe_device()} ({platform.machine()}), Python
{platform.python_version()}, uotcell {version("uotcell")}, jax {version("jax")}.

{__doc__.split(chr(10) * 2)[2].strip()}

*OT* and *UOT*: pairs from the balanced and from the unbalanced plan. *entropic*: pairs of the plan on straight lines.
*random coupling with growth*: sources by their weight in the unbalanced coupling. *noise floor*: one half of the real
cells against the other.

"""
    arguments.out.write_text(head + report(scores) + "\n", encoding="utf-8")
    print(arguments.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
