"""Control and treated cells of two lines, small enough that compiling is most of a fit."""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import uotcell as uc

N_CELLS, N_DIMS, N_GENES = 44, 3, 8
N_TEST = N_VALID = 4
N_TRAIN = N_CELLS - N_TEST - N_VALID
# One setting, and pairs trained one by one, so that the program of a fit is compiled once for all tests.
QUICK = {"method": uc.methods.ICNN(hidden=(8,), n_inner=1), "n_iters": 4, "batch_size": 16, "group_size": 1}
QUICK["progress"] = False


def make_cells(lines=("a",), drugs=("mild", "strong"), seed=0):
    """Return N_CELLS cells of every line and of the control and every drug, in random order.

    Drugs move cells along the first component, the second line lies three units off along the second. Genes are a
    rotation of the components into eight dimensions, far enough from zero to be positive.
    """
    rng = np.random.default_rng(seed)
    labels = ["control", *drugs]
    obs = pd.DataFrame([(label, line) for line in lines for label in labels for _ in range(N_CELLS)])
    obs.columns = ["drug", "line"]
    cells = rng.normal(size=(len(obs), N_DIMS))
    cells[:, 0] += 1.5 * obs["drug"].map(labels.index)
    cells[:, 1] += 3.0 * obs["line"].map(lines.index)
    order = rng.permutation(len(obs))
    obs, cells = obs.iloc[order].astype("category"), cells[order] - cells.mean(axis=0)
    obs.index = [f"cell{i}" for i in range(len(obs))]
    loadings = np.linalg.qr(np.random.default_rng(1).normal(size=(N_GENES, N_DIMS)))[0]
    genes = pd.DataFrame({"mean": np.linspace(5, 6, N_GENES)}, index=[f"gene{i}" for i in range(N_GENES)])
    counts = cells @ loadings.T + genes["mean"].to_numpy()
    return AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=obs,
        var=genes,
        obsm={"X_pca": cells.astype(np.float32)},
        varm={"PCs": loadings},
        uns={"log": {"by": "hand"}},
    )
