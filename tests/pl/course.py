"""A time course whose interpolations are written by hand: two lineages that move apart on straight lines."""

import numpy as np
import pandas as pd
from anndata import AnnData

from uotcell.problems import TemporalProblem

N_CELLS = 40  # per day


def cells():
    """Days 0 and 1; the cells of day 1 are those of day 0 after their moves. The embedding has its axes exchanged."""
    turn = np.arange(N_CELLS) * 2.4  # the golden angle spreads evenly
    early = 0.3 * np.sqrt(np.arange(1, N_CELLS + 1))[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    up = np.arange(N_CELLS) % 2 == 0
    lineage = np.tile(np.where(up, "upper", "lower"), 2)
    late = early + np.where(up[:, None], [4.0, 3.0], [4.0, -3.0])
    x = np.hstack([np.vstack([early, late]), np.zeros((2 * N_CELLS, 1))]).astype(np.float32)
    obs = pd.DataFrame(
        {
            "day": np.repeat([0.0, 1.0], N_CELLS),
            "lineage": pd.Categorical(lineage, categories=["upper", "lower", "none"]),
            "score": np.tile(np.arange(N_CELLS), 2) / N_CELLS,
        },
        index=[f"cell{i}" for i in range(2 * N_CELLS)],
    )
    return AnnData(obs=obs, obsm={"X_rep": x, "X_umap": np.column_stack([x[:, 1], x[:, 0]])})


class StraightCourse(TemporalProblem):
    """Every cell of day 0 on its way, those that move up weighing three times as much."""

    def __init__(self, adata, use_rep="X_rep"):
        super().__init__(adata)
        self.params = {"time_key": "day", "use_rep": use_rep, "layer": None}

    def interpolate(self, t):
        if not 0 <= t <= 1:
            raise ValueError(f"Expected `t` to be within [0, 1], found {t}.")
        x = np.asarray(self.adata.obsm["X_rep"])
        weights = np.tile([3.0, 1.0], N_CELLS // 2) / (2 * N_CELLS)
        obs = pd.DataFrame({"weight": weights, "origin": self.adata.obs_names[:N_CELLS]})
        positions = ((1 - t) * x[:N_CELLS] + t * x[N_CELLS:]).astype(np.float32)
        obs.index = obs.index.astype(str)
        if self.params["use_rep"] == "X":
            return AnnData(positions, obs=obs)
        return AnnData(obs=obs, obsm={"X_rep": positions})
