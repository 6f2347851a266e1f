"""The developing pancreas, from GEO."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import anndata as ad
import numpy as np
import pandas as pd

from uotcell.datasets._fetch import fetch
from uotcell.datasets._published import (
    add_pca,
    check_columns,
    choose_days,
    choose_genes,
    expression,
    labels,
    numbers,
    read_h5ad,
)
from uotcell.datasets._registry import entries

BROAD, FINE = "clusters_fig6_broad_final", "clusters_fig6_fine_final"


def pancreas(
    path: str | PathLike | None = None,
    *,
    days: Sequence[float] | None = (14.5, 15.5),
    known_hash: str | None = None,
    progress: bool = True,
) -> ad.AnnData:
    """Mouse pancreas in development, embryonic days 14.5 and 15.5 (Bastidas-Ponce et al. 2019).

    36,351 epithelial cells × 17,327 genes [1]_. The 20,519 cells of the last two days are those on which unbalanced
    Monge maps were judged by the transitions between cell types [2]_. This is the authors' file in GEO, not the
    smaller one of day 15.5 alone that CellRank and scVelo offer.

    ====  ======
    day   cells
    ====  ======
    12.5  10,790
    13.5   5,042
    14.5   9,633
    15.5  10,886
    ====  ======

    Parameters
    ----------
    path
        The file ``GSE132188_adata.h5ad.h5`` from GEO, if you have it. It is downloaded otherwise (334 MB), once, to the
        folder in the environment variable ``UOTCELL_DATA_DIR`` or to the user's cache.
    days
        Embryonic days to keep; all when ``None``.
    known_hash
        Hash to require of a download, ``"sha256:…"`` or ``"md5:…"``. The one in the registry by default.
    progress
        Show a progress bar during a download.

    Returns
    -------
    A new object with

    - ``.X``: CSR float32 (n_cells, 17327), expression as published.
    - ``.obs["day"]``: float64 (n_cells,), embryonic day.
    - ``.obs["cell_type"]``: categorical (n_cells,), the authors' broad clusters, "unknown" where they give none.
    - ``.obs["cell_type_fine"]``: categorical (n_cells,), their fine clusters, the same way.
    - ``.obsm["X_pca"]``: float32, the published components, fitted on all four days. Where a file has none, 50
      components of the kept cells, with ``.varm["PCs"]``, ``.var["mean"]`` and ``.var["highly_variable"]``.
    - ``.obsm["X_umap"]``: float32 (n_cells, 2), if the file has it.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key, cell_type_key.

    Raises
    ------
    FileNotFoundError, ConnectionError
        If there is no file at ``path``, or it cannot be downloaded.
    ValueError
        If the file is another one, or ``days`` are not in it.

    References
    ----------
    .. [1] Bastidas-Ponce et al. (2019), Comprehensive single cell mRNA profiling reveals a detailed roadmap for
       pancreatic endocrinogenesis, Development 146(12), dev173849, doi:10.1242/dev.173849
    .. [2] Eyring et al. (2024), Unbalancedness in neural Monge maps improves unpaired domain translation, ICLR,
       arXiv:2311.15100

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.pancreas()  # doctest: +SKIP
    """
    entry = entries()["pancreas"]
    file = fetch(entry, path, known_hash=known_hash, progress=progress)
    raw = read_h5ad(file, entry)
    check_columns(raw.obs, ["day", BROAD, FINE], file, entry)
    day = numbers(raw.obs["day"], file, entry)
    rows = np.flatnonzero(choose_days(days, day))
    kept = raw.obs.iloc[rows]

    obs = {"day": day[rows], "cell_type": labels(kept[BROAD]), "cell_type_fine": labels(kept[FINE])}
    adata = ad.AnnData(
        expression(raw.X[rows]),
        obs=pd.DataFrame(obs, index=kept.index.astype(str).rename(None)),
        var=pd.DataFrame(index=raw.var_names.astype(str).rename(None)),
    )
    for key in [key for key in ("X_pca", "X_umap") if key in raw.obsm]:
        adata.obsm[key] = np.asarray(raw.obsm[key][rows], np.float32)
    if "X_pca" not in adata.obsm:
        choose_genes(adata)
        add_pca(adata)
    adata.uns["dataset"] = entry.describe()
    return adata
