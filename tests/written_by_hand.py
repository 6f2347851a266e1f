"""A fit of a time course written by hand, as TemporalProblem.write leaves it, for tests that need no training."""

import numpy as np

import uotcell as uc


def write_fit(adata, time_key, pair, images, *, use_rep="X_pca", key="uot", tau=0.95, solve=False):
    """Write images ``(n, d)`` of the source cells of a pair; with `solve`, weights and record of a real coupling."""
    times = adata.obs[time_key].to_numpy()
    source_rows, target_rows = (np.flatnonzero(times == time) for time in pair)
    cells = np.asarray(adata.obsm[use_rep])
    push = np.full(cells.shape, np.nan, np.float32)
    push[source_rows] = images
    weights = [np.full(adata.n_obs, np.nan, np.float32) for _ in range(2)]
    metrics = {}
    if solve:
        coupling = uc.ot.solve_unbalanced(cells[source_rows], cells[target_rows], tau=tau)
        metrics = {"transported_mass": coupling.transported_mass, "cost_scale": coupling.scale}
    for weight, rows, side in zip(weights, (source_rows, target_rows), ("source", "target"), strict=True):
        weight[rows] = np.asarray(getattr(coupling, f"{side}_weights")) * len(rows) if solve else 1.0
        adata.obs[f"{key}_{side}_weight"] = weight
    adata.obsm[f"{key}_push"] = push
    adata.obsm[f"{key}_velocity"] = (push - cells).astype(np.float32) / np.float32(pair[1] - pair[0])
    adata.uns[key] = {
        "params": {
            "time_key": time_key, "use_rep": use_rep, "policy": "explicit", "epsilon": 0.01, "tau": tau,
            "cost": "sqeuclidean", "scale_cost": "mean", "rng": 0,
        },
        "pairs": {
            "source": np.array([str(pair[0])]),
            "target": np.array([str(pair[1])]),
            "time_difference": np.array([float(pair[1] - pair[0])]),
        },
        "history": {},
        "metrics": {f"{pair[0]}_{pair[1]}": metrics},
    }  # fmt: skip
    return source_rows, target_rows
