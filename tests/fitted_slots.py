"""An AnnData with the slots of a fitted time course, written by hand."""

from itertools import pairwise

import numpy as np
import pandas as pd
from anndata import AnnData


def fitted_course(day, cells, push, weight=None, *, pairs, key="uot", time_key="day"):
    """Cells at their times, images and weights given for all of them and dropped where a cell is no source.

    Parameters
    ----------
    day
        Times, numbers ``(n_cells,)``.
    cells, push
        Positions and images, ``(n_cells, n_dims)``.
    weight
        Mass multipliers, ``(n_cells,)``; one by default.
    pairs
        (source, target) times.
    """
    day, cells = np.asarray(day), np.asarray(cells, np.float32)
    sources = np.isin(day, [source for source, _ in pairs])
    push = np.where(sources[:, None], push, np.nan).astype(np.float32)
    weight = np.ones(len(day)) if weight is None else np.asarray(weight)
    return AnnData(
        np.zeros((len(day), 1), np.float32),  # CellRank's estimators ask for some expression
        obs=pd.DataFrame(
            {time_key: day, f"{key}_source_weight": np.where(sources, weight, np.nan).astype(np.float32)},
            index=[f"cell{i}" for i in range(len(day))],
        ),
        obsm={"X_pca": cells, f"{key}_push": push, f"{key}_velocity": push - cells},
        uns={
            key: {
                "params": {"time_key": time_key, "use_rep": "X_pca"},
                "pairs": {
                    "source": np.asarray([str(source) for source, _ in pairs]),
                    "target": np.asarray([str(target) for _, target in pairs]),
                    "time_difference": np.asarray([float(target - source) for source, target in pairs]),
                },
            }
        },
    )


def random_course(n=40, n_dims=3, seed=0, times=(0.0, 1.0, 3.0)):
    """A cloud that drifts along the first axis from time to time, cells in random order, some of them dying."""
    rng = np.random.default_rng(seed)
    day = rng.permutation(np.repeat(times, n))
    cells = rng.normal(size=(len(day), n_dims))
    cells[:, 0] += day
    weight = np.where(rng.random(len(day)) < 0.2, 0.01, rng.uniform(0.5, 1.5, len(day)))
    push = cells + rng.normal(scale=0.1, size=cells.shape)
    push[:, 0] += 1.0
    return fitted_course(day, cells, push, weight, pairs=list(pairwise(times)))
