"""A step of flow matching, against the bare update and against torchcfm, for `training.py` to print."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median

import jax
import numpy as np
from engine import BATCH, DIM, EPSILON, N_CELLS, RUN_STEPS, bare_update, cells_on_device, engine_step, timed

import uotcell as uc
from uotcell.methods import Batch, FlowMatching

FLOW, NAMES = FlowMatching(hidden=(256, 256, 256)), {1.0: "OT-FM", 0.95: "UOT-FM"}
# Steps of compiled loops are short: more of them make a measurement.
COMPILED_FACTOR = 5
PEER_PACKAGES = ("torch", "torchcfm", "POT")


def flow_matching_table(x: np.ndarray, y: np.ndarray, rounds: int, steps: int) -> None:
    """Time the engine, the bare update and torchcfm in turn, and print."""
    compiled_steps = COMPILED_FACTOR * steps
    runs: dict[str, tuple[Callable, int]] = {}
    one_off = {}
    for tau, name in NAMES.items():
        one_off[name], engine = _engine(x, y, tau, compiled_steps)
        runs[f"engine {name}"] = (engine, compiled_steps)
    runs["bare update"] = (_bare(compiled_steps), compiled_steps)
    has_peer = all(find_spec(module) for module in ("torch", "torchcfm", "ot"))
    if has_peer:
        peer = TorchCFM(x, y)
        runs["torchcfm network only"] = (partial(peer.network_steps, compiled_steps), compiled_steps)
        runs["torchcfm exact OT-CFM"] = (partial(peer.steps, steps), steps)

    for run, _ in runs.values():
        timed(run)  # compiles
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (run, n) in runs.items():
            seconds[name].append(timed(run)[0] / n)
    for name, extra in one_off.items():
        seconds[f"engine {name} + one-off"] = [s + sum(extra) / RUN_STEPS for s in seconds[f"engine {name}"]]

    print(f"\nFlow matching, network {FLOW.hidden}, batch {BATCH}")
    print("one-off solve + pool of partners: " + _one_off_line(one_off))
    print(f"{'':<34}{'ms per step':>12}{'min':>8}{'max':>8}")
    for name, values in seconds.items():
        print(f"{name:<34}{1e3 * median(values):>12.1f}{1e3 * min(values):>8.1f}{1e3 * max(values):>8.1f}")
    print(f"{'ratio (target)':<34}" + "".join(f"{name:>12}" for name in NAMES.values()))
    engines = [f"engine {name} + one-off" for name in NAMES.values()]
    _print_ratios("engine + one-off over bare (≤ 1.5)", [(engine, "bare update") for engine in engines], seconds)
    if has_peer:
        _print_ratios("torchcfm over engine (≥ 10)", [("torchcfm exact OT-CFM", e) for e in engines], seconds)
        pairs = [("torchcfm network only", "bare update")] * len(engines)
        _print_ratios("its network over bare", pairs, seconds)
        print(", ".join(f"{name} {version(name)}" for name in PEER_PACKAGES) + f", torch on {peer.n_threads} threads")
    else:
        print(
            "torchcfm is not installed. To compare with it, run `pip install POT torch` and "
            "`pip install --no-deps torchcfm`, which leaves out what only its examples need."
        )


def _engine(x: np.ndarray, y: np.ndarray, tau: float, steps: int) -> tuple[tuple[float, float], Callable]:
    """Seconds of the one-off solve and of the pool of partners, and the engine."""
    for _ in range(2):  # the first call compiles
        solve, coupling = timed(partial(uc.ot.solve_unbalanced, x, y, tau=tau, epsilon=EPSILON))
        pool, _ = timed(cells_on_device, FLOW, coupling)
    return (solve, pool), engine_step(FLOW, coupling, BATCH, steps)[1]


def _bare(steps: int) -> Callable:
    shape, rng = (FLOW.draws, BATCH, DIM), jax.random.key(0)
    batch = Batch(jax.random.normal(rng, shape), 1 + jax.random.normal(jax.random.key(1), shape))
    return partial(bare_update(FLOW, steps), FLOW.init(rng, DIM), batch, rng)


class TorchCFM:
    """The loop of torchcfm's examples, with its own network of the same widths on as many threads as jax has cores."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        # Threads that spin while they wait take the cores from whatever else runs, and made torch five times slower on
        # a machine that was shared.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch
        from torchcfm.conditional_flow_matching import (
            ConditionalFlowMatcher,
            ExactOptimalTransportConditionalFlowMatcher,
        )
        from torchcfm.models import MLP

        self.torch, self.n_threads = torch, os.cpu_count()
        torch.set_num_threads(self.n_threads)
        torch.manual_seed(0)
        self.x, self.y = (torch.as_tensor(points, dtype=torch.float32) for points in (x, y))
        self.model = MLP(DIM, w=FLOW.hidden[0], time_varying=True)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=FLOW.learning_rate)
        self.plain, self.exact = ConditionalFlowMatcher(sigma=0.0), ExactOptimalTransportConditionalFlowMatcher(0.0)

    def steps(self, n: int) -> float:
        """Draw a batch of each side, pair it by its exact plan, update."""
        for _ in range(n):
            i, j = self.torch.randint(N_CELLS, (2, BATCH))
            loss = self._update(self.exact, self.x[i], self.y[j])
        return loss

    def network_steps(self, n: int) -> float:
        """Update on one batch whose cells are paired as they come."""
        for _ in range(n):
            loss = self._update(self.plain, self.x[:BATCH], self.y[:BATCH])
        return loss

    def _update(self, matcher, x, y) -> float:
        t, point, velocity = matcher.sample_location_and_conditional_flow(x, y)
        loss = ((self.model(self.torch.cat([point, t[:, None]], dim=-1)) - velocity) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def _one_off_line(one_off: dict[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {solve:.2f} + {pool:.2f} s" for name, (solve, pool) in one_off.items())


def _print_ratios(title: str, pairs: list[tuple[str, str]], seconds: dict[str, list[float]]) -> None:
    """Print medians of ratios that are taken within rounds."""
    values = [median(a / b for a, b in zip(seconds[over], seconds[under], strict=True)) for over, under in pairs]
    print(f"{title:<34}" + "".join(f"{value:>12.2f}" for value in values))
