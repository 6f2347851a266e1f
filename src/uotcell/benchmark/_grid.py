"""The tasks of a benchmark, and what one of them does."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from uotcell._errors import ConvergenceError
from uotcell.benchmark._baselines import LINEAR_MAPS
from uotcell.benchmark._config import BenchmarkConfig
from uotcell.benchmark._random import jax_stream
from uotcell.benchmark._scores import CEILING, SCORED, Candidate, score_rows
from uotcell.benchmark._screen import Screen
from uotcell.benchmark._split import SplitPair, split_pair
from uotcell.ot import UnbalancedCoupling, solve_unbalanced
from uotcell.train import fit_many
from uotcell.train._device import describe_device

BASELINES, ENTROPIC = "baselines", "entropic"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Conditions that train together, by one method at one τ under one seed; or all baselines of them.

    Attributes
    ----------
    dataset
        Name of the screen.
    chunk
        Number of the group of conditions.
    conditions
        Their labels and groups.
    method
        Name of the method, or ``"baselines"``.
    tau
        τ of the method; ``None`` for baselines, which try all.
    seed
        Seed of splits, draws and training.
    """

    dataset: str
    chunk: int
    conditions: tuple[tuple[str, str], ...]
    method: str
    tau: float | None
    seed: int

    @property
    def id(self) -> str:
        """Name of the task and of its file."""
        tau = "" if self.tau is None else f"_tau{self.tau:g}"
        return f"{self.dataset}_{self.method}{tau}_seed{self.seed}_chunk{self.chunk}"


def make_tasks(screens: Sequence[Screen], config: BenchmarkConfig) -> list[Task]:
    """Return all tasks: seeds outermost, so that an interrupted run holds whole seeds; within one, baselines first."""
    kinds = [(BASELINES, None), *product(config.methods, config.tau_grid)]
    tasks = []
    for seed, screen in product(config.seeds, screens):
        size = config.conditions_per_task
        chunks = [screen.conditions[i : i + size] for i in range(0, len(screen.conditions), size)]
        tasks += [
            Task(dataset=screen.name, chunk=number, conditions=conditions, method=method, tau=tau, seed=seed)
            for (method, tau), (number, conditions) in product(kinds, enumerate(chunks))
        ]
    return tasks


def run_task(task: Task, screen: Screen, config: BenchmarkConfig) -> dict:
    """Fit and score; return rows, means of the observed cells, and how long it took, as plain values."""
    clock = [time.perf_counter()]
    pairs = [split_pair(screen, label, group, task.seed, config.n_score_cells) for label, group in task.conditions]
    if task.method == BASELINES:
        candidates = [_baselines(pair, config) for pair in pairs]
    else:
        candidates = [[candidate] for candidate in _fitted(pairs, task, config)]
    clock.append(time.perf_counter())
    scored = [(pair, c) for pair, several in zip(pairs, candidates, strict=True) for c in several]
    rows = [{"dataset": task.dataset, **row} for pair, candidate in scored for row in _score(pair, candidate)]
    clock.append(time.perf_counter())
    return {
        "task": task.id,
        "method": task.method,
        "rows": rows,
        "observed": [
            {"group": pair.group, "condition": pair.label, "split": split, "mean": mean.tolist()}
            for pair in pairs
            for split in SCORED
            for mean in [pair.draws[split].observed.mean(axis=0, dtype=float)]
        ],
        "fit_seconds": clock[1] - clock[0],
        "score_seconds": clock[2] - clock[1],
        "device": describe_device(),
        "process": os.getpid(),
    }


def _score(pair: SplitPair, candidate: Candidate) -> list[dict]:
    try:
        return score_rows(pair, candidate)
    except ConvergenceError as error:
        return score_rows(pair, replace(candidate, error=str(error)))


def _baselines(pair: SplitPair, config: BenchmarkConfig) -> list[Candidate]:
    x, y = pair.source["train"], pair.target["train"]
    candidates = [Candidate(method=name, push=fit(x, y)) for name, fit in LINEAR_MAPS.items()]
    candidates.append(Candidate(method=CEILING))
    for tau in config.tau_grid:
        coupling, error = _solve(pair, tau, config)
        push = None if coupling is None else coupling.push
        candidates.append(Candidate(method=ENTROPIC, tau=tau, push=push, coupling=coupling, error=error))
    return candidates


def _fitted(pairs: list[SplitPair], task: Task, config: BenchmarkConfig) -> list[Candidate]:
    """Return the map of every condition; where a solve or a fit does not converge, a candidate that says so."""
    solved = [_solve(pair, task.tau, config) for pair in pairs]
    usable = [i for i, (coupling, _) in enumerate(solved) if coupling is not None]
    maps = _fit([pairs[i] for i in usable], [solved[i][0] for i in usable], task, config) if usable else []
    fitted = dict(zip(usable, maps, strict=True))
    candidates = []
    for i, (coupling, error) in enumerate(solved):
        push, error = fitted.get(i, (None, error))
        candidates.append(Candidate(method=task.method, tau=task.tau, push=push, coupling=coupling, error=error))
    return candidates


def _solve(pair: SplitPair, tau: float, config: BenchmarkConfig) -> tuple[UnbalancedCoupling | None, str]:
    try:
        return solve_unbalanced(pair.source["train"], pair.target["train"], epsilon=config.epsilon, tau=tau), ""
    except ConvergenceError as error:
        return None, str(error)


def _fit(pairs: list[SplitPair], couplings: list, task: Task, config: BenchmarkConfig) -> list[tuple]:
    """Return (map, error) of every condition, from one joint fit or, should that diverge, from one fit each."""
    try:
        # The stream knows no τ: maps of all τ start from the same network.
        fits = fit_many(
            config.methods[task.method],
            couplings,
            n_iters=config.n_iters[task.method],
            batch_size=min(config.batch_size, _batch_that_pays(pairs)),
            rng=[jax_stream(task.seed, "fit", task.method, pair.label, pair.group) for pair in pairs],
            valid=[(pair.source["valid"], pair.target["valid"]) for pair in pairs],
            progress=False,
            **config.fit_options,
        )
    except ConvergenceError as error:
        if len(pairs) == 1:
            return [(None, str(error))]
        return [_fit([pair], [coupling], task, config)[0] for pair, coupling in zip(pairs, couplings, strict=True)]
    return [(transport_map.push, "") for transport_map, _ in fits]


def _batch_that_pays(pairs: list[SplitPair]) -> int:
    """Return the greatest power of two within the cells of the largest condition: beyond, cells only repeat."""
    return 1 << (max(len(pair.target["train"]) for pair in pairs).bit_length() - 1)
