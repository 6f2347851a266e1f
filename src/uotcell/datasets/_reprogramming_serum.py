"""The whole reprogramming course in serum, as CellRank hosts it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from uotcell.datasets._fetch import fetch
from uotcell.datasets._published import (
    add_pca,
    check_columns,
    check_h5ad,
    choose_days,
    choose_genes,
    expression,
    labels,
    numbers,
)
from uotcell.datasets._registry import entries

LAYOUT = "X_force_directed"


def reprogramming_serum(
    path: str | PathLike | None = None,
    *,
    days: Sequence[float] | None = None,
    known_hash: str | None = None,
    progress: bool = True,
) -> ad.AnnData:
    """Fibroblasts reprogrammed to stem cells in serum, 39 time points from day 0 to 18 (Schiebinger et al. 2019).

    165,892 mouse cells × 19,089 genes [1]_, the file of CellRank's ``reprogramming_schiebinger`` with
    ``subset_to_serum=True``. :func:`reprogramming` has 1,000 cells of the same course and needs no file. No hash of the
    file (about 3.9 GB) is known to us, so it is only downloaded with the hash you give. Figshare may send a script a
    page instead of the file: open the address in a browser then.

    Parameters
    ----------
    path
        The h5ad file, if you have it.
    days
        Days to keep, such as ``(10, 10.5, 11)``; all by default. Only their cells are read.
    known_hash
        Hash to require of a download, ``"sha256:…"`` or ``"md5:…"``.
    progress
        Show a progress bar during a download.

    Returns
    -------
    A new object with

    - ``.X``: CSR float32 (n_cells, 19089), log-normalised expression as published.
    - ``.obs["day"]``: float64 (n_cells,), days since the start.
    - ``.obs["cell_type"]``: categorical (n_cells,), called ``cell_sets`` in the file: "MEF/other", "MET", "Stromal",
      "Epithelial", "Trophoblast", "Neural" or "IPS".
    - ``.var["highly_variable"]``: bool (19089,), the genes the PCA used, as published.
    - ``.var["mean"]``: float64 (19089,), mean of ``.X``, which the PCA subtracts.
    - ``.varm["PCs"]``: float32 (19089, 50), zero for genes the PCA did not use.
    - ``.obsm["X_pca"]``: float32 (n_cells, 50), fitted on the kept cells of all days together.
    - ``.obsm["X_force_directed"]``: float32 (n_cells, 2), the authors' layout, if the file has it.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key, cell_type_key.

    Raises
    ------
    FileNotFoundError, ConnectionError
        If there is no file at ``path``, or it cannot be downloaded.
    ValueError
        If neither ``path`` nor ``known_hash`` is given, the file is another one, or ``days`` are not in it.

    References
    ----------
    .. [1] Schiebinger et al. (2019), Optimal-transport analysis of single-cell gene expression identifies developmental
       trajectories in reprogramming, Cell 176(4), 928-943, doi:10.1016/j.cell.2019.01.006

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming_serum("reprogramming_schiebinger_serum.h5ad")  # doctest: +SKIP
    """
    entry = entries()["reprogramming_serum"]
    file = fetch(entry, path, known_hash=known_hash, progress=progress)
    check_h5ad(file, entry)
    # The file also holds a transition matrix of all cells, which would be read with the whole object.
    with h5py.File(file) as store:
        raw_obs, raw_var = read_elem(store["obs"]), read_elem(store["var"])
        check_columns(raw_obs, ["day", "cell_sets"], file, entry)
        day = numbers(raw_obs["day"], file, entry)
        rows = np.flatnonzero(choose_days(days, day))
        matrix = store["X"] if isinstance(store["X"], h5py.Dataset) else sparse_dataset(store["X"])
        values = expression(matrix[rows])
        layout = read_elem(store["obsm"][LAYOUT])[rows] if LAYOUT in store.get("obsm", {}) else None

    obs = pd.DataFrame({"day": day[rows], "cell_type": labels(raw_obs["cell_sets"].iloc[rows])})
    adata = ad.AnnData(
        values,
        obs=obs.set_index(raw_obs.index[rows].astype(str).rename(None)),
        var=pd.DataFrame(index=raw_var.index.astype(str).rename(None)),
    )
    adata.var_names_make_unique()
    if layout is not None:
        adata.obsm[LAYOUT] = np.asarray(layout, np.float32)
    if "highly_variable" in raw_var:
        adata.var["highly_variable"] = raw_var["highly_variable"].to_numpy(bool)
    else:
        choose_genes(adata)
    add_pca(adata)
    adata.uns["dataset"] = entry.describe()
    return adata
