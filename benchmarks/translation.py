"""Find cells again that were rotated into another space: FOSCTTM of the plan and of GENOT.

Run ``python benchmarks/translation.py`` (about ten minutes on two cores); it prints one table. The target is the
embedding of the EMT time course, 3,133 cells in ten dimensions. The source is the same cells, padded by two dimensions
of zeros and rotated at random. FOSCTTM is the share of cells nearer to an image than the cell's own counterpart, in
both directions: 0 is perfect, 0.5 chance. *fused* has two shared features: the first two coordinates, of which the
source's carry noise of a tenth of their spread. ``--noise`` adds noise to the source itself, as a share of its spread:
without any, the two spaces are the same up to a rotation, which no two measurements are.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import uotcell as uc
from uotcell.methods import GENOT
from uotcell.metrics import foscttm

METHOD, N_ITERS = GENOT(hidden=(128, 128, 128)), 2_000


def spaces(seed: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Source, target and shared features of both, rows in the same order."""
    rng = np.random.default_rng(seed)
    y = np.asarray(uc.datasets.emt().obsm["X_embedding"], float)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    x = np.c_[y + noise * y.std() * rng.normal(size=y.shape), np.zeros((len(y), 2))] @ rotation
    shared = y[:, :2]
    return x, y, shared + 0.1 * shared.std(axis=0) * rng.normal(size=shared.shape), shared


def main() -> None:
    """Fit, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.2])
    arguments = parser.parse_args()
    print("| noise | problem | seed | mass | plan | GENOT | seconds: solve | fit |\n|---|---|---|---|---|---|---|---|")
    for noise in arguments.noise:
        for seed in range(arguments.seeds):
            x, y, x_shared, y_shared = spaces(seed, noise)
            for name, tau, shared in (
                ("quadratic", 1.0, {}),
                ("fused", 0.95, {"x_shared": x_shared, "y_shared": y_shared}),
            ):
                started = time.perf_counter()
                coupling = uc.ot.solve_quadratic(x, y, tau=tau, rng=seed, **shared)
                solved = time.perf_counter()
                fitted, _ = uc.train.fit(METHOD, coupling, n_iters=N_ITERS, rng=seed, progress=False)
                done = time.perf_counter()
                cells = np.c_[x, x_shared] if shared else x
                scores = [foscttm(push(cells)[:, : y.shape[1]], y) for push in (coupling.push, fitted.push)]
                print(
                    f"| {noise:g} | {name}, τ = {tau:g} | {seed} | {coupling.transported_mass:.2f} | {scores[0]:.4f} "
                    f"| {scores[1]:.2g} | {solved - started:.0f} | {done - solved:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
