"""A perturbation screen that fits in seconds."""

from dataclasses import dataclass

import anndata as ad
import numpy as np

import uotcell as uc

N_CELLS, N_DIMS = 60, 3
ICNN = uc.methods.ICNN(hidden=(8,), n_inner=1)
SETTINGS = {"methods": [ICNN], "tau_grid": (1.0, 0.9), "seeds": 2, "n_iters": 10, "progress": False}
CALL = {**SETTINGS, "use_rep": "X", "client": "synchronous"}


@dataclass(frozen=True)
class Shift:
    """A condition that moves every cell alike and kills those with a small first feature."""

    by: float

    def push(self, x):
        return x + self.by

    def survival(self, x):
        return 1 / (1 + np.exp(-x[:, 0]))


def tiny_screen(n_conditions=3, *, n_cells=N_CELLS, seed=0, lines=()):
    """Controls around zero, condition ``drug<i>`` around i + 1; with ``lines``, as many cells again of every line."""
    rng = np.random.default_rng(seed)
    cells, labels, groups = [], [], []
    for line in lines or ("",):
        for number in range(n_conditions + 1):
            cells.append(rng.normal(size=(n_cells, N_DIMS)) * (1 + 0.2 * number) + number)
            labels += [f"drug{number - 1}" if number else "control"] * n_cells
            groups += [line] * n_cells
    adata = ad.AnnData(np.concatenate(cells).astype(np.float32))
    adata.obs["drug"], adata.obs["line"] = labels, groups
    adata.obsm["X_pca"] = adata.X.copy()
    return adata


def tiny_truth(n_conditions=3):
    return {f"drug{number}": Shift(number + 1.0) for number in range(n_conditions)}
