"""Time of a training step: the engine against the bare network update and against a Sinkhorn solve in every step.

Run ``python benchmarks/training.py``; it prints three tables. All rows of the first share one network (the published
ICNN, four layers of 64, leaky ReLU, ten inner steps), one pair of 4,000 × 4,000 cells in 50 dimensions and batches of
1,024. Rounds alternate between the contenders, and ratios are taken within a round, so that a machine that slows down
slows all.

- *bare*: the compiled update scanned over one fixed batch. No data, no coupling, no draws.
- *engine*: what ``uc.train.fit`` runs, plus its one-off solve spread over 2,000 steps.
- *per-step*: the published way. Every step draws a batch, solves it with ott's Sinkhorn, resamples it, and dispatches
  ten inner steps and an outer one.

A second table compares the step of the Monge gap with ott's ``MongeGapEstimator``: the same residual network, batches
of 256, ε = 0.05 of the mean cost, Adam at a cosine schedule, as many steps each; both maps are then scored by ott's
own losses on the same cells.

A third table times flow matching on the same cells: a velocity network of three layers of 256, fitted to pairs of a
balanced and of an unbalanced plan. Its peer is torchcfm, which solves an exact plan for every batch. Its rows need
``pip install POT torch`` and ``pip install --no-deps torchcfm``, and are left out without.
"""

from __future__ import annotations

import argparse
import platform
from functools import partial
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import optax
import ott_monge_gap
from engine import BATCH, DIM, EPSILON, N_CELLS, RUN_STEPS, bare_update, cells, engine_step, timed
from flow_matching import flow_matching_table
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

import uotcell as uc
from uotcell.methods import ICNN, Batch, MongeGap
from uotcell.train._device import describe_device

METHOD = ICNN(hidden=(64, 64, 64, 64), activation="leaky_relu", n_inner=10)
MONGE_GAP, GAP_BATCH, GAP_STEPS = MongeGap(gap_weight=0.3), 256, 500


class PerStep:
    """The published loop: a Sinkhorn solve and separate dispatches in every step."""

    def __init__(self, x: jax.Array, y: jax.Array, *, tau: float, recenter: bool):
        self.x, self.y = x, y
        self.inner = jax.jit(self._inner)
        self.outer = jax.jit(self._outer)
        self.rescale = jax.jit(partial(self._rescale, tau=tau, recenter=recenter))
        self.draw = jax.jit(lambda rng, points: points[jax.random.randint(rng, (BATCH,), 0, len(points))])
        self.optimizer = METHOD.default_optimizer()

    @staticmethod
    def _rescale(rng, x, y, *, tau: float, recenter: bool):
        geometry = PointCloud(x, y, epsilon=EPSILON, scale_cost="mean")
        output = Sinkhorn(recenter_potentials=recenter)(LinearProblem(geometry, tau_a=tau, tau_b=tau))
        rng_x, rng_y = jax.random.split(rng)
        rows = jax.random.categorical(rng_x, jnp.log(output.matrix.sum(1)), shape=(BATCH,))
        columns = jax.random.categorical(rng_y, jnp.log(output.matrix.sum(0)), shape=(BATCH,))
        return x[rows], y[columns]

    def _inner(self, psi, optimizer, phi, x):
        def loss(psi):
            image = METHOD._gradient(psi, x)
            return jnp.mean(METHOD._potential(phi, image) - jnp.sum(x * image, axis=-1))

        return METHOD.apply_gradient(psi, optimizer, jax.grad(loss)(psi), 0.0)

    def _outer(self, psi, phi, optimizer, x, y):
        image = METHOD._gradient(psi, x)
        gradient = jax.grad(lambda p: jnp.mean(METHOD._potential(p, y)) - jnp.mean(METHOD._potential(p, image)))(phi)
        return METHOD.apply_gradient(phi, optimizer, gradient, 0.0)

    def run(self, state, rng, steps: int):
        """Take steps one dispatch at a time; the rescaled batch serves all inner steps, as published."""
        psi, phi = state.params["source"], state.params["target"]
        psi_state, phi_state = state.optimizer["source"], state.optimizer["target"]
        for step in range(steps):
            rng_x, rng_y, rng_rescale = jax.random.split(jax.random.fold_in(rng, step), 3)
            x, y = self.rescale(rng_rescale, self.draw(rng_x, self.x), self.draw(rng_y, self.y))
            for _ in range(METHOD.n_inner):
                psi, psi_state = self.inner(psi, psi_state, phi, x)
            phi, phi_state = self.outer(psi, phi, phi_state, x, y)
        return psi, phi


def monge_gap_table(x: np.ndarray, y: np.ndarray, rounds: int, steps: int) -> None:
    """Time a Monge-gap step against ott's, and score both maps by ott's losses."""
    coupling = uc.ot.solve_unbalanced(x, y, epsilon=0.05)
    _, engine, _ = engine_step(MONGE_GAP, coupling, GAP_BATCH, steps)
    epsilon = 0.05 * coupling.scale
    peer = ott_monge_gap.estimator(
        DIM, hidden=MONGE_GAP.hidden, epsilon=epsilon, gap_weight=0.3, n_iters=GAP_STEPS,
        learning_rate=optax.cosine_decay_schedule(MONGE_GAP.learning_rate, GAP_STEPS),
    )  # fmt: skip
    # The peer draws uniformly, so both train between the same, balanced, measures.
    ott_steps = partial(ott_monge_gap.train, peer, x, y, batch_size=GAP_BATCH, seed=0)
    timed(engine), ott_steps(steps=2)
    seconds = {"engine": [], "ott": []}
    for _ in range(rounds):
        seconds["engine"].append(timed(engine)[0] / steps)
        seconds["ott"].append(timed(partial(ott_steps, steps=steps))[0] / steps)
    ott_steps(steps=GAP_STEPS - 2 - rounds * steps)
    fitted, _ = uc.train.fit(
        MONGE_GAP, coupling, n_iters=GAP_STEPS, batch_size=GAP_BATCH, valid_fraction=0.0, progress=False
    )
    rows = np.random.default_rng(1).choice(N_CELLS, 1_000, replace=False)
    images = {
        "engine": fitted.push(x[rows]),
        "ott": peer.state_neural_net.apply_fn({"params": peer.state_neural_net.params}, jnp.asarray(x[rows])),
    }
    print(f"\nMonge gap, batch {GAP_BATCH}, losses by ott on 1,000 cells after {GAP_STEPS} steps")
    print(f"{'':<34}{'ms per step':>12}{'min':>8}{'max':>8}{'fit':>9}{'gap':>9}{'sum':>9}")
    for name, values in seconds.items():
        fit, gap = (
            float(v) for v in ott_monge_gap.losses(jnp.asarray(images[name]), x[rows], y[rows], epsilon=epsilon)
        )
        milliseconds = "".join(f"{1e3 * f(values):>{w}.1f}" for f, w in ((median, 12), (min, 8), (max, 8)))
        print(f"{name:<34}{milliseconds}{fit:>9.3f}{gap:>9.3f}{fit + 0.3 * gap:>9.3f}")
    ratio = median(a / b for a, b in zip(seconds["ott"], seconds["engine"], strict=True))
    print(f"ott over engine: {ratio:.2f} (≥ 3)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps per measurement")
    options = parser.parse_args()
    steps, (x, y) = options.steps, cells(0)
    rng = jax.random.key(0)

    setups, solve_seconds = {}, {}
    for tau in (0.95, 0.99):
        uc.ot.solve_unbalanced(x, y, tau=tau, epsilon=EPSILON)  # compiles
        solve_seconds[tau], coupling = timed(partial(uc.ot.solve_unbalanced, x, y, tau=tau, epsilon=EPSILON))
        data, engine, state = engine_step(METHOD, coupling, BATCH, steps)
        setups[f"engine τ={tau}"] = engine
        points = (data.frame.source(data.x[:N_CELLS]), data.frame.target(data.y[:N_CELLS]))
        for recenter in (False, True):
            loop = PerStep(*points, tau=tau, recenter=recenter)
            setups[f"per-step τ={tau} {'recentred' if recenter else 'plain'}"] = partial(loop.run, state, rng, steps)
    shape = (METHOD.draws, BATCH, DIM)
    batch = Batch(jax.random.normal(rng, shape), 1 + jax.random.normal(jax.random.key(1), shape))
    setups["bare update"] = partial(bare_update(METHOD, steps), state, batch, rng)

    for run in setups.values():
        timed(run)  # compiles
    seconds = {name: [] for name in setups}
    for _ in range(options.rounds):
        for name, run in setups.items():
            seconds[name].append(timed(run)[0] / steps)
    for tau, solve in solve_seconds.items():
        seconds[f"engine τ={tau} + solve"] = [s + solve / RUN_STEPS for s in seconds[f"engine τ={tau}"]]

    def ratio(name: str, other: str) -> float:
        return median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))

    print(
        f"\n{describe_device()}, {platform.machine()}, jax {jax.__version__}, {options.rounds} rounds of {steps} steps"
    )
    print("one-off solve: " + ", ".join(f"τ={tau} {s:.2f} s" for tau, s in solve_seconds.items()))
    print(f"\n{'':<34}{'ms per step':>12}{'min':>8}{'max':>8}   ratio (target)")
    targets = {
        "engine τ=0.95": ("over bare", ratio("engine τ=0.95", "bare update"), "≤ 1.15"),
        "engine τ=0.99": ("over bare", ratio("engine τ=0.99", "bare update"), "≤ 1.15"),
    }
    bars = {(0.95, "plain"): 3.0, (0.99, "plain"): 7.0, (0.95, "recentred"): 1.6, (0.99, "recentred"): 2.2}
    for (tau, kind), bar in bars.items():
        name = f"per-step τ={tau} {kind}"
        targets[name] = ("over engine + solve", ratio(name, f"engine τ={tau} + solve"), f"≥ {bar:g}")
    for name, values in seconds.items():
        row = f"{name:<34}{1e3 * median(values):>12.1f}{1e3 * min(values):>8.1f}{1e3 * max(values):>8.1f}"
        if name in targets:
            over, value, bar = targets[name]
            row += f"   {value:.2f} {over} ({bar})"
        print(row)
    monge_gap_table(x, y, options.rounds, steps)
    flow_matching_table(x, y, options.rounds, steps)


if __name__ == "__main__":
    main()
