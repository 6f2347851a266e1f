"""A fit of 100,000 cells in 50 dimensions, run by ``test_memory_limit.py`` in a process of 6 GB of address space."""

import resource
import sys

LIMIT = 6_000_000_000
resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))  # before anything is imported: threads and pools count

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from anndata import AnnData  # noqa: E402

import uotcell as uc  # noqa: E402
from uotcell._memory import free_bytes  # noqa: E402


def resident() -> int:
    """Most memory this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fit(adata: AnnData, **options) -> tuple[int, uc.problems.TemporalProblem]:
    problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, epsilon=0.1, n_iters=20, progress=False, **options)
    problem.push(adata, 0, 1)
    return resident(), problem


def main(n_cells: int, anchors: int) -> None:
    rng = np.random.default_rng(0)
    day = np.arange(n_cells) % 2
    cells = rng.normal(size=(n_cells, 50)).astype(np.float32) + 0.3 * day[:, None]
    obs = pd.DataFrame({"day": day}, index=[f"cell {i}" for i in range(n_cells)])
    adata = AnnData(obs=obs, obsm={"X_pca": cells})
    assert free_bytes() < LIMIT
    # The small limit first: the most that was held never falls.
    little, _ = fit(adata, anchors=anchors, memory_limit="300MB")
    weights = adata.obs["uot_source_weight"].to_numpy()
    much, problem = fit(adata, anchors=anchors)
    difference = np.nanmax(np.abs(adata.obs["uot_source_weight"].to_numpy() - weights))
    images = problem.push(adata, 0, 1)
    print(little, much, difference, np.isfinite(images).all(), images.shape)


main(int(sys.argv[1]), int(sys.argv[2]))
