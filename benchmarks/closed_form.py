"""Errors of couplings and maps against the closed form between Gaussians, in 2, 8 and 32 dimensions.

Run ``python benchmarks/closed_form.py``; it prints one table. 4,000 cells a side, ε = 0.01 of the mean cost. *mean*
and *variance* are the errors of the rescaled source and target moments: means relative to the distance they moved,
variances relative to their value, the larger of the two sides. L2-UVP in percent, on fresh cells. The neural map starts
from the identity.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import uotcell as uc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from gaussian_oracle import make_oracle


def moment_errors(cells, weights, moments, prior_mean) -> tuple[float, float]:
    """Errors of the weighted mean and variance of one side."""
    weights = np.asarray(weights, np.float64) / np.asarray(weights, np.float64).sum()
    mean = weights @ cells
    moved = np.linalg.norm(moments[0] - prior_mean)
    return np.linalg.norm(mean - moments[0]) / moved, np.abs(weights @ (cells - mean) ** 2 / moments[1] - 1).max()


def main() -> None:
    """Measure and print."""
    print(f"{'d':>3}{'λ':>6}{'τ':>7}{'mass':>7}{'mean %':>8}{'variance %':>12}{'entropic UVP':>14}{'ICNN UVP':>10}")
    for dim in (2, 8, 32):
        for penalty in (4.0, 6.0, 12.0, 36.0):
            oracle = make_oracle(dim, penalty)
            x, y = oracle.sample(4000, seed=1)
            coupling = uc.ot.solve_unbalanced(x, y, marginal_penalty=penalty / oracle.mean_cost)
            fitted, _ = uc.train.fit(uc.methods.ICNN(initial_map="identity"), coupling, n_iters=1_500, progress=False)
            sides = zip(
                moment_errors(x, coupling.source_weights, oracle.rescaled_source, oracle.source_mean),
                moment_errors(y, coupling.target_weights, oracle.rescaled_target, oracle.target_mean),
                strict=True,
            )
            mean, variance = (100 * max(side) for side in sides)
            print(
                f"{dim:>3}{penalty:>6g}{coupling.tau[0]:>7.3f}{coupling.transported_mass:>7.3f}{mean:>8.1f}"
                f"{variance:>12.1f}{oracle.l2_uvp(coupling.push):>14.2f}{oracle.l2_uvp(fitted.push):>10.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
