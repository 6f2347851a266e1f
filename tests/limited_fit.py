"""A fit of 100,000 cells in 50 dimensions, run by ``test_memory_limit.py`` in a process of 6 GB of address space."""

import resource
from pathlib import Path

LIMIT = 6_000_000_000
resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))  # before anything is imported: threads and pools count

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from anndata import AnnData  # noqa: E402

import uotcell as uc  # noqa: E402
from uotcell._memory import free_bytes  # noqa: E402


def resident() -> int:
    """Most memory this process has held so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux `getrusage` begins with what the process had held that started this one
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    rng = np.random.default_rng(0)
    day = np.arange(100_000) % 2
    cells = rng.normal(size=(len(day), 50)).astype(np.float32) + 0.3 * day[:, None]
    obs = pd.DataFrame({"day": day}, index=[f"cell {i}" for i in range(len(day))])
    adata = AnnData(obs=obs, obsm={"X_pca": cells})
    assert free_bytes() < LIMIT, "the limit of the address space does not count"
    found, weights = [resident()], []
    # The small limit first: the most that was held never falls.
    for memory_limit in ("200MB", None):
        problem = uc.tl.fit_trajectory(
            adata, "day", epsilon=0.2, anchors=4_000, memory_limit=memory_limit, n_iters=20, progress=False
        )
        images = problem.push(adata, 0, 1)
        found.append(resident())
        weights.append(adata.obs["uot_source_weight"].to_numpy())
        assert images.shape == cells.shape
        assert np.isfinite(images).all()
    np.testing.assert_allclose(*weights, rtol=1e-4)
    print(*found)


main()
