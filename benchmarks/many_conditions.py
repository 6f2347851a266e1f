"""All conditions of a screen as one program against one after another: wall time and compilations, same seeds.

Run ``python benchmarks/many_conditions.py``; it prints one table. The conditions are those of the embedded CRISPR
screens, each against the controls of all cell lines; couplings are solved beforehand, once for both sides.

- *one by one*: ``uc.train.fit`` for each condition. Compiled programs are kept between fits, so that only new shapes
  compile: this is what a careful user's loop costs.
- *one by one, fresh*: the same, with the compiled programs forgotten between fits: what a process per drug costs.
  Measured on the first few conditions and scaled up.
- *fit_many*: all conditions in one call, as this device runs them: in lockstep (``vmap``) on an accelerator, one pair
  after another inside one program on a CPU.
- *the other way*: the same with the other of the two.
"""

from __future__ import annotations

import argparse
import platform
import time
from unittest import mock

import jax
import numpy as np

import uotcell as uc
from uotcell._memory import on_accelerator
from uotcell.methods import MongeGap
from uotcell.train._device import describe_device

FRESH_CONDITIONS = 3


class Compilations:
    """Count compiled programs of the training loop and of anything else, as jax reports them."""

    def __init__(self):
        self.n = self.loops = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, _: float, *, fun_name: str = "", **__) -> None:
        compiled = event == "/jax/core/compile/backend_compile_duration"
        self.n += compiled
        self.loops += compiled and "train_chunk" in fun_name


def couplings(n_conditions: int | None) -> tuple[list[str], list]:
    """Solved pairs of control and each perturbation."""
    adata = uc.datasets.crispr_screens()
    label = adata.obs["perturbation"].astype(str).to_numpy()
    cells, names = adata.obsm["X_pca"], sorted(set(label) - {"control"})[:n_conditions]
    control = cells[label == "control"]
    return names, [uc.ot.solve_unbalanced(control, cells[label == name], tau=0.95, epsilon=0.05) for name in names]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", type=int, help="number of conditions (default: all)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    names, solved = couplings(options.conditions)
    method, seeds = MongeGap(), list(range(len(names)))
    settings = {"n_iters": options.steps, "batch_size": options.batch_size, "valid_fraction": 0.0, "progress": False}
    counter, found = Compilations(), {}

    def measure(title: str, run) -> list:
        jax.clear_caches()
        counter.n, counter.loops, started = 0, 0, time.perf_counter()
        maps = run()
        found[title] = time.perf_counter() - started, counter.loops, counter.n
        return maps

    def one_by_one(n: int, *, fresh: bool) -> list:
        maps = []
        for coupling, seed in zip(solved[:n], seeds, strict=False):
            if fresh:
                jax.clear_caches()
            maps.append(uc.train.fit(method, coupling, rng=seed, **settings)[0])
        return maps

    def together() -> list:
        return [fitted for fitted, _ in uc.train.fit_many(method, solved, rng=seeds, **settings)]

    many, lockstep = measure("fit_many", together), on_accelerator()
    with mock.patch("uotcell.train._engine.on_accelerator", return_value=not lockstep):
        measure(f"fit_many, {'in sequence' if lockstep else 'in lockstep'}", together)
    alone = measure("one by one", lambda: one_by_one(len(names), fresh=False))
    measure("one by one, fresh", lambda: one_by_one(FRESH_CONDITIONS, fresh=True))
    scale = len(names) / FRESH_CONDITIONS
    found["one by one, fresh"] = tuple(scale * value for value in found["one by one, fresh"])

    x = np.asarray(uc.datasets.crispr_screens().obsm["X_pca"][:200])
    moved = np.sqrt(np.mean([((a.push(x) - x) ** 2).sum(1).mean() for a in alone]))
    apart = np.sqrt(np.mean([((a.push(x) - b.push(x)) ** 2).sum(1).mean() for a, b in zip(alone, many, strict=True)]))
    print(f"\n{describe_device()}, {platform.machine()}, jax {jax.__version__}")
    print(f"{len(names)} conditions, {options.steps} steps, batch {options.batch_size}, Monge gap")
    print(f"\n{'':<22}{'seconds':>10}{'compiled loops':>16}{'all programs':>14}   ratio to fit_many")
    for title, (seconds, loops, programs) in found.items():
        ratio = seconds / found["fit_many"][0]
        print(f"{title:<22}{seconds:>10.1f}{loops:>16.0f}{programs:>14.0f}   {ratio:.2f}")
    print(f"\nmaps differ by {apart:.2g}, where cells move by {moved:.2g} (root mean square)")


if __name__ == "__main__":
    main()
