"""Where Epithelial cells go from day 10.5 to day 11 of reprogramming, balanced and unbalanced, over five seeds.

Run ``python benchmarks/reprogramming.py``; it prints one table. Fitting is measured before fate: the Sinkhorn
divergence between the pushed, rescaled source and the rescaled target over that of the entropic map, at three ε in
units of the mean cost. *leak* is the share of Epithelial mass that lands nearest to a Stromal cell; *plan* is what the
discrete plan itself sends there.
"""

from __future__ import annotations

import argparse

import numpy as np

import uotcell as uc

EPSILONS = (0.05, 0.3, 1.0)
# "to the end": all cells train and the last parameters count. "held-out": the defaults, and with source noise.
SETTINGS = {
    "to the end": (uc.methods.ICNN(learning_rate=2e-2), {"n_iters": 3_000, "batch_size": 512, "valid_fraction": 0.0}),
    "held-out": (uc.methods.ICNN(), {"n_iters": 1_500}),
    "held-out, noise 0.5": (uc.methods.ICNN(), {"n_iters": 1_500, "source_noise": 0.5}),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    adata = uc.datasets.reprogramming()
    day, labels = adata.obs["day"].to_numpy(), adata.obs["cell_type"].to_numpy().astype(str)
    cells = np.asarray(adata.obsm["X_pca"])
    source, target = day == 10.5, day == 11.0
    x, y = cells[source], cells[target]

    ratios = "".join(f"{f'fit ε={e:g}':>12}" for e in EPSILONS)
    print(f"{'':<40}{'leak':>8}{ratios}{'held-out':>10}{'entropic':>10}{'identity':>10}")
    for tau in (1.0, 0.95):
        name = "OT" if tau == 1 else "UOT"
        coupling = uc.ot.solve_unbalanced(x, y, tau=tau)
        weights = np.asarray(coupling.source_weights), np.asarray(coupling.target_weights)

        def leak(pushed, weights=weights[0]):
            arguments = (pushed, labels[source], y, labels[target], "Epithelial", "Stromal")
            return uc.metrics.transition_share(*arguments, weights=weights, n_neighbors=1)

        def divergences(pushed, weights=weights, scale=coupling.scale):
            masses = dict(zip("ab", weights, strict=True))
            return np.array([uc.metrics.sinkhorn_divergence(pushed, y, epsilon=e * scale, **masses) for e in EPSILONS])

        print(f"{name + ' plan':<40}{plan_leak(coupling, labels[source], labels[target]):>8.3f}")
        entropic = divergences(coupling.push(x))
        print(f"{name + ' entropic map':<40}{leak(coupling.push(x)):>8.3f}" + 3 * f"{1:>12.2f}")
        for setting, (method, training) in SETTINGS.items():
            rows = []
            for seed in range(options.seeds):
                fitted, history = uc.train.fit(method, coupling, rng=seed, progress=False, **training)
                pushed = fitted.push(x)
                held_out = min(history.valid_divergence, default=np.nan)
                baselines = [history.baseline.get(key, np.nan) for key in ("entropic map", "identity")]
                rows.append([leak(pushed), *(divergences(pushed) / entropic), held_out, *baselines])
            for what, row in (("mean", np.mean(rows, axis=0)), ("max", np.max(rows, axis=0))):
                shown = f"{row[0]:>8.3f}" + "".join(f"{v:>12.2f}" for v in row[1:4])
                shown += "".join(f"{'-' if np.isnan(v) else format(v, '.0f'):>10}" for v in row[4:])
                print(f"{f'{name}-ICNN {setting}, {what}':<40}{shown}", flush=True)


def plan_leak(coupling: uc.ot.UnbalancedCoupling, source: np.ndarray, target: np.ndarray) -> float:
    """Share of the Epithelial mass that the discrete plan sends to Stromal cells."""
    i, j = coupling.sample_pairs(0, 500_000)
    epithelial = source[i] == "Epithelial"
    return float((target[j][epithelial] == "Stromal").mean())


if __name__ == "__main__":
    main()
