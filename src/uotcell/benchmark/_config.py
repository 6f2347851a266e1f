"""Everything that determines the numbers of a benchmark, kept with its results."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from uotcell.benchmark._screen import Screen
from uotcell.benchmark._store import read_json, write_json
from uotcell.methods import ICNN, Method, MongeGap, resolve_method
from uotcell.problems._base import package_versions, plain

FIT_OPTIONS = ("ema_decay", "log_every", "patience", "rescaling", "source_noise")
VERSIONS = "versions"
DEFAULT_METHODS = {"monge_gap": MongeGap(), "icnn": ICNN(hidden=(32, 32), n_inner=3)}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Settings of a benchmark.

    Attributes
    ----------
    datasets
        By name, the fingerprint of the data.
    methods
        By name, the estimators.
    tau_grid
        The τ every method is fitted with; 1, the balanced problem, is among them.
    seeds
        Seeds of splits, draws and training.
    epsilon
        ε of the couplings, in units of the mean cost.
    n_iters
        By method, training steps.
    batch_size
        Cells per batch and side.
    n_score_cells
        Most cells that are scored per condition and split.
    conditions_per_task
        Conditions that train together.
    fit_options
        Further arguments of :func:`uotcell.train.fit_many`.
    """

    datasets: Mapping[str, dict]
    methods: Mapping[str, Method]
    tau_grid: tuple[float, ...]
    seeds: tuple[int, ...]
    epsilon: float
    n_iters: Mapping[str, int]
    batch_size: int
    n_score_cells: int
    conditions_per_task: int
    fit_options: Mapping[str, object]

    def to_dict(self) -> dict:
        """Return the settings as plain values, and the versions of the packages they were used with."""
        settings = {field.name: _jsonable(plain_of(getattr(self, field.name))) for field in fields(self)}
        return {**settings, VERSIONS: package_versions()}

    def claim(self, out: Path) -> None:
        """Write the settings into a new folder, or make sure that those of an old one are the same.

        Raises
        ------
        ValueError
            If the folder holds results of other settings.
        """
        path, mine = out / "config.json", self.to_dict()
        if not path.exists():
            if (out / "tasks").exists():
                raise ValueError(f"Expected {path} beside the results in {out}, found none. Choose another `out`.")
            write_json(path, mine)
            return
        theirs = read_json(path)
        versions = differences(theirs.pop(VERSIONS, {}), mine.pop(VERSIONS))
        changed = differences(theirs, mine)
        if changed:
            lines = "; ".join(f"{name} was {old!r} and is {new!r}" for name, old, new in changed)
            raise ValueError(
                f"Expected the settings of the results in {out}, found others: {lines}. Choose another `out`, or "
                "delete the folder."
            )
        if versions:
            lines = "; ".join(f"{name} was {old} and is {new}" for name, old, new in versions)
            warnings.warn(f"The results in {out} were started with other versions: {lines}.", stacklevel=4)


def resolve_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """Return seeds; a number stands for that many."""
    seeds = tuple(range(seeds)) if isinstance(seeds, (int, np.integer)) else tuple(int(seed) for seed in seeds)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"Expected a positive number of seeds, or different non-negative ones, found {seeds}.")
    return seeds


def resolve_methods(methods: Sequence[str | Method] | Mapping[str, str | Method] | None) -> dict[str, Method]:
    """Return estimators by name; a mapping gives the names, otherwise each method has its own."""
    methods = DEFAULT_METHODS if methods is None else methods
    if isinstance(methods, (str, Method)):
        methods = (methods,)
    if isinstance(methods, Mapping):
        named = {name: resolve_method(method) for name, method in methods.items()}
    else:
        resolved = [resolve_method(method) for method in methods]
        named = {method.name: method for method in resolved}
        if len(named) < len(resolved):
            raise ValueError(
                f"Expected `methods` of different names, found {[method.name for method in resolved]}. Give a dict "
                "from names of your choice to methods."
            )
    taken = {"baselines", "entropic", "ceiling", "identity", "mean_shift", "diagonal_affine", "gaussian"} & set(named)
    bad = sorted(taken) or [name for name in named if not str(name).replace("_", "").replace("-", "").isalnum()]
    if bad:
        raise ValueError(
            f"Expected names of `methods` of letters, digits, '_' and '-', and none of a baseline, found {bad}."
        )
    return named


def resolve_n_iters(n_iters: int | Mapping[str, int], methods: Mapping[str, Method]) -> dict[str, int]:
    """Return training steps by method."""
    if isinstance(n_iters, Mapping):
        if set(n_iters) != set(methods):
            raise ValueError(f"Expected `n_iters` for the methods {sorted(methods)}, found {sorted(n_iters)}.")
        return dict(n_iters)
    return dict.fromkeys(methods, n_iters)


def make_config(
    screens: Sequence[Screen],
    *,
    methods,
    tau_grid: Sequence[float],
    seeds: int | Sequence[int],
    epsilon: float,
    n_iters: int | Mapping[str, int],
    batch_size: int,
    n_score_cells: int,
    conditions_per_task: int,
    fit_options: Mapping[str, object] | None,
) -> BenchmarkConfig:
    """Check the settings and put them together."""
    names = [screen.name for screen in screens]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Expected data sets of different names, found {names}.")
    methods = resolve_methods(methods)
    n_iters = resolve_n_iters(n_iters, methods)
    tau_grid = tuple(float(tau) for tau in tau_grid)
    if 1.0 not in tau_grid or len(set(tau_grid)) < len(tau_grid) or not all(0 < tau <= 1 for tau in tau_grid):
        raise ValueError(f"Expected `tau_grid` of different numbers in (0, 1], 1 among them, found {tau_grid}.")
    seeds = resolve_seeds(seeds)
    if not (isinstance(epsilon, (int, float)) and 0 < epsilon < math.inf):
        raise ValueError(f"Expected `epsilon` to be a positive number, found {epsilon!r}.")
    counts = {"batch_size": batch_size, "n_score_cells": n_score_cells, "conditions_per_task": conditions_per_task}
    for name, value in (*counts.items(), *((f"n_iters of {name!r}", value) for name, value in n_iters.items())):
        if not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"Expected `{name}` to be a positive integer, found {value!r}.")
    fit_options = dict(fit_options or {})
    unknown = sorted(set(fit_options) - set(FIT_OPTIONS))
    if unknown:
        raise ValueError(f"Expected `fit_options` among {list(FIT_OPTIONS)}, found {unknown}.")
    return BenchmarkConfig(
        datasets={screen.name: screen.fingerprint() for screen in screens},
        methods=methods,
        tau_grid=tau_grid,
        seeds=seeds,
        epsilon=float(epsilon),
        n_iters={name: int(value) for name, value in n_iters.items()},
        fit_options=fit_options,
        **{name: int(value) for name, value in counts.items()},
    )


def differences(old: Mapping, new: Mapping, prefix: str = "") -> list[tuple]:
    """(dotted name, old value, new value) of everything in which two nested dicts differ."""
    found = []
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = old.get(name, "absent"), new.get(name, "absent")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found.append((f"{prefix}{name}", a, b))
    return found


def plain_of(value):
    """Turn methods inside a setting into their settings."""
    if isinstance(value, Mapping):
        return {name: plain_of(item) for name, item in value.items()}
    return plain(value) if isinstance(value, Method) else value


def _jsonable(value):
    """Return what the value is once it was written as JSON and read again."""
    if isinstance(value, Mapping):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, (tuple, list, np.ndarray)):
        return [_jsonable(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
