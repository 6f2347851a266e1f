"""Time and memory from ten thousand to a million cells a side: the coupling, the training, the prediction.

Run ``python benchmarks/scale.py``; it prints two tables. Cells are drawn from twenty clusters in 50 dimensions that
move, and of which some grow and some die. Every problem is solved twice, and the second time counts, so that compiling
does not.

- *all cells*: ``uc.ot.solve_unbalanced`` in tiles, the time of the whole solve and of one sweep.
- *ott*: ott-jax's ``Sinkhorn`` on its own dense ``PointCloud``, on the same cells of the same ε and τ, up to ``--peer``
  cells: the time of one sweep. Its stopping rule is another, so whole solves do not compare. (Its ``batch_size=``
  asks for a name that jax has removed: ott-jax 0.6.0 under jax 0.10.2.)
- *anchors*: solved on some cells a side and extended to all. The error is that of the source weights against all cells.

Memory is the peak of the device since the start of the process; on a CPU that of the process.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry.pointcloud import PointCloud
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn

import uotcell as uc
from uotcell.train._device import describe_device

DIM, CLUSTERS, TAU, EPSILON = 50, 20, 0.95, 0.05
OTT_SWEEPS = 20
METHODS = {"icnn": 300, "flow_matching": 1_000}


def cells(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Source and target of ``n`` cells each."""
    rng = np.random.default_rng(seed)
    centres, moves = rng.normal(0, 3, (CLUSTERS, DIM)), rng.normal(0, 0.5, (CLUSTERS, DIM))
    growth = np.exp(rng.normal(0, 0.5, CLUSTERS))
    source = rng.integers(CLUSTERS, size=n)
    target = rng.choice(CLUSTERS, size=n, p=growth / growth.sum())
    x = centres[source] + rng.normal(size=(n, DIM))
    y = centres[target] + moves[target] + rng.normal(size=(n, DIM))
    return x.astype(np.float32), y.astype(np.float32)


def timed(function):
    """Return what a second call returns, and its seconds."""
    jax.block_until_ready(function())
    started = time.perf_counter()
    found = jax.block_until_ready(function())
    return found, time.perf_counter() - started


def peak_memory() -> float:
    """Peak in GB, of the device or, on a CPU, of the process."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e9


def ott_sweep(x: np.ndarray, y: np.ndarray, epsilon: float) -> float:
    """Seconds of one sweep of ott's solver, a mean over twenty."""
    geometry = PointCloud(jnp.asarray(x), jnp.asarray(y), epsilon=epsilon)
    problem = LinearProblem(geometry, tau_a=TAU, tau_b=TAU)
    solver = Sinkhorn(min_iterations=OTT_SWEEPS, max_iterations=OTT_SWEEPS, recenter_potentials=True)
    solve = jax.jit(lambda p: solver(p).g)
    return timed(lambda: solve(problem))[1] / OTT_SWEEPS


def solve_row(n: int, anchors: int | None, reference: np.ndarray | None, *, peer: bool) -> tuple[str, np.ndarray]:
    """Return a row of the table of couplings, and the source weights."""
    x, y = cells(n)
    coupling, seconds = timed(lambda: uc.ot.solve_unbalanced(x, y, tau=TAU, epsilon=EPSILON, anchors=anchors))
    weights = np.asarray(coupling.source_weights, np.float64)
    error = "" if reference is None else f"{np.abs(weights - reference).sum() / reference.sum():.3f}"
    sweep = f"{seconds / coupling.n_iters:.3g}" if anchors is None else ""
    ott = f"{ott_sweep(x, y, EPSILON * coupling.scale):.3g}" if peer else ""
    used = "all" if anchors is None else f"{anchors:,}"
    row = [f"{n:,}", used, f"{seconds:.3g}", str(coupling.n_iters), sweep, ott, error, f"{peak_memory():.2f}"]
    return f"| {' | '.join(row)} |", weights


def training_row(n: int, anchors: int | None, method: str) -> str:
    """Return a row of the table of training and prediction."""
    x, y = cells(n)
    coupling = uc.ot.solve_unbalanced(x, y, tau=TAU, epsilon=EPSILON, anchors=anchors)
    transport_map, history = uc.train.fit(method, coupling, n_iters=METHODS[method], log_every=100, progress=False)
    _, seconds = timed(lambda: transport_map.push(x))
    row = [f"{n:,}", method, f"{history.steps_per_second:.0f}", f"{n / seconds:,.0f}", f"{peak_memory():.2f}"]
    return f"| {' | '.join(row)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=int, nargs="*", default=[10_000, 30_000], help="cells a side, all of them used")
    parser.add_argument("--with-anchors", type=int, nargs="*", default=[30_000, 100_000], help="cells a side")
    parser.add_argument("--peer", type=int, default=30_000, help="most cells a side of ott's dense solve")
    parser.add_argument("--anchors", type=int, default=5_000)
    options = parser.parse_args()
    print(f"{describe_device()}, {platform.machine()}, jax {jax.__version__}, float32, {DIM} dimensions, τ = {TAU}, "
          f"ε = {EPSILON}\n")  # fmt: skip
    print("| cells a side | used | solve (s) | sweeps | s / sweep | ott: s / sweep | error of weights | peak (GB) |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    references = {}
    for n in options.all:
        row, references[n] = solve_row(n, None, None, peer=n <= options.peer)
        print(row, flush=True)
    for n in options.with_anchors:
        print(solve_row(n, options.anchors, references.get(n), peer=False)[0], flush=True)
    print("\n| cells a side | method | steps / s | pushed cells / s | peak (GB) |\n|---:|---|---:|---:|---:|")
    for n in sorted({*options.all, *options.with_anchors}):
        for method in METHODS:
            print(training_row(n, None if n in options.all else options.anchors, method), flush=True)


if __name__ == "__main__":
    main()
