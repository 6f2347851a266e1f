"""Run a benchmark from screens to tables."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from uotcell.benchmark._config import make_config
from uotcell.benchmark._grid import make_tasks, run_task
from uotcell.benchmark._machine import describe_machine
from uotcell.benchmark._result import BenchmarkResult
from uotcell.benchmark._runner import run_tasks
from uotcell.benchmark._screen import Screen
from uotcell.benchmark._store import read_json, read_task, task_path, write_json
from uotcell.methods import Method


def run_benchmark(
    screens: Sequence[Screen],
    *,
    methods: Sequence[str | Method] | Mapping[str, str | Method] | None = None,
    tau_grid: Sequence[float] = (1.0, 0.99, 0.95, 0.9),
    seeds: int | Sequence[int] = 5,
    epsilon: float = 0.05,
    n_iters: int | Mapping[str, int] = 400,
    batch_size: int = 128,
    n_score_cells: int = 500,
    conditions_per_task: int = 12,
    fit_options: Mapping[str, object] | None = None,
    tune: str | None = None,
    out: str | Path = "uotcell_benchmark",
    client=None,
    progress: bool = True,
    command: str | None = None,
) -> BenchmarkResult:
    """Fit every method to every condition at every τ and seed, and compare them with simpler maps.

    Parameters
    ----------
    screens
        The data.
    methods, tau_grid, seeds, epsilon, n_iters, batch_size, n_score_cells, conditions_per_task, fit_options
        See :func:`uotcell.tl.benchmark_perturbation`.
    tune, out, client, progress
        See :func:`uotcell.tl.benchmark_perturbation`.
    command
        How the run was started, for the report.

    Returns
    -------
    The result. Its tables are in ``out``.

    Raises
    ------
    ValueError
        If a setting is out of range, or ``out`` holds results of other settings.
    RuntimeError
        If tasks failed, after all others have finished; they run again with the next call.

    Examples
    --------
    >>> import tempfile, uotcell as uc
    >>> screen = uc.benchmark.read_screen(uc.datasets.reprogramming(), "day", 10.0, conditions=[11.0])
    >>> result = uc.benchmark.run_benchmark(
    ...     [screen], methods=(), tau_grid=(1.0,), seeds=1, out=tempfile.mkdtemp(), client="synchronous", progress=False
    ... )
    >>> "ceiling" in set(result.families["family"])
    True
    """
    started = time.perf_counter()
    config = make_config(
        screens, methods=methods, tau_grid=tau_grid, seeds=seeds, epsilon=epsilon, n_iters=n_iters,
        batch_size=batch_size, n_score_cells=n_score_cells, conditions_per_task=conditions_per_task,
        fit_options=fit_options,
    )  # fmt: skip
    out = Path(out)
    config.claim(out)
    tasks = make_tasks(screens, config)
    waiting = [task for task in tasks if read_task(out, task.id) is None]
    failures = run_tasks(
        run_task,
        waiting,
        {screen.name: screen for screen in screens},
        lambda task, result: write_json(task_path(out, task.id), result),
        arguments=(config,),
        client=client,
        progress=progress,
        n_done=len(tasks) - len(waiting),
    )
    _log_run(out, command, len(waiting) - len(failures), time.perf_counter() - started)
    if failures:
        shown = "".join(f"\n  {name}: {message.splitlines()[0]}" for name, message in sorted(failures.items())[:20])
        raise RuntimeError(
            f"{len(failures)} of {len(tasks)} tasks failed; the others are kept in {out}. Mend the cause and run the "
            f"same command again:{shown}"
        )
    return BenchmarkResult.load(out, tune=tune)


def _log_run(out: Path, command: str | None, n_tasks: int, seconds: float) -> None:
    """Append this run to ``runs.json``; one that only read finished tasks is not worth a line."""
    path = out / "runs.json"
    runs = read_json(path)["runs"] if path.exists() else []
    if n_tasks or not runs:
        run = {"command": command or shlex.join(sys.argv), "tasks": n_tasks, "seconds": seconds, **describe_machine()}
        write_json(path, {"runs": [*runs, run]})
