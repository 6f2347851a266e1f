"""Embryoid bodies, as TrajectoryNet published them."""

from __future__ import annotations

import zipfile
from os import PathLike
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

from uotcell.datasets._fetch import fetch, origin
from uotcell.datasets._registry import Entry, entries

# Slots by the names of the arrays in the file; the first is needed.
SLOTS = {"pcs": "X_pca", "phate": "X_phate", "pcs_delta": "velocity_pca"}
TIME = "sample_labels"


def embryoid_body(
    path: str | PathLike | None = None, *, known_hash: str | None = None, progress: bool = True
) -> ad.AnnData:
    """Human embryonic stem cells in embryoid bodies over 27 days, five times (Moon et al. 2019).

    The principal components of the cells [1]_ on which TrajectoryNet [2]_ and many flow models since were judged; no
    genes were published with them. No hash of the file is known to us, so it is only downloaded with the hash you give.

    Parameters
    ----------
    path
        The file ``eb_velocity_v5.npz`` from the repository of TrajectoryNet, if you have it.
    known_hash
        Hash to require of a download, ``"sha256:…"`` or ``"md5:…"``.
    progress
        Show a progress bar during a download.

    Returns
    -------
    A new object with

    - ``.obsm["X_pca"]``: float32 (n_cells, 100), as published, the ``use_rep`` to fit in. Papers scale its axes to unit
      deviation and keep the first 5 to 100.
    - ``.obsm["X_phate"]``: float32 (n_cells, 2), if the file has it.
    - ``.obsm["velocity_pca"]``: float32 (n_cells, 100), RNA velocity in the components, if the file has it.
    - ``.X``: dense float32 (n_cells, 100), the components again, not expression. ``.var_names``: "pc1", "pc2", ….
    - ``.obs["time"]``: float64 (n_cells,), number of the sample: 0 (days 0 to 3), 1 (6 to 9), 2 (12 to 15), 3 (18 to
      21) or 4 (24 to 27). These are not days.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key.

    Raises
    ------
    FileNotFoundError, ConnectionError
        If there is no file at ``path``, or it cannot be downloaded.
    ValueError
        If neither ``path`` nor ``known_hash`` is given, or the file is another one.

    Notes
    -----
    The file is read without unpickling anything. The license in the registry is that of TrajectoryNet's repository,
    which states none for the data.

    References
    ----------
    .. [1] Moon et al. (2019), Visualizing structure and transitions in high-dimensional biological data, Nature
       Biotechnology 37, 1482-1492, doi:10.1038/s41587-019-0336-3
    .. [2] Tong et al. (2020), TrajectoryNet: a dynamic optimal transport network for modeling cellular dynamics, ICML,
       arXiv:2002.04461

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.embryoid_body("eb_velocity_v5.npz")  # doctest: +SKIP
    """
    entry = entries()["embryoid_body"]
    file = fetch(entry, path, known_hash=known_hash, progress=progress)
    arrays = _read(file, entry)
    time = arrays.pop(TIME)
    values = arrays["pcs"]
    names = [f"cell{k}" for k in range(len(values))]
    adata = ad.AnnData(
        values.copy(),
        obs=pd.DataFrame({"time": time.astype(np.float64)}, index=names),
        var=pd.DataFrame(index=[f"pc{k}" for k in range(1, values.shape[1] + 1)]),
    )
    for name, array in arrays.items():
        adata.obsm[SLOTS[name]] = array
    adata.uns["dataset"] = entry.describe()
    return adata


def _read(path: Path, entry: Entry) -> dict[str, np.ndarray]:
    """Arrays of the file that have a slot, checked."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"Expected {path} to be an npz file, found that it is none. {origin(entry)}")
    with np.load(path, allow_pickle=False) as store:
        missing = {TIME, "pcs"} - set(store.files)
        if missing:
            raise ValueError(f"Expected {path} to hold {sorted(missing)}, found {store.files}. {origin(entry)}")
        arrays = {name: store[name] for name in (TIME, *SLOTS) if name in store.files}
    for name, array in arrays.items():
        n_dims = 1 if name == TIME else 2
        if array.ndim != n_dims or array.dtype.kind not in "iuf" or len(array) != len(arrays["pcs"]):
            raise ValueError(
                f"Expected {name!r} of {path} to be numbers of {n_dims} dimensions with one row per cell, found shape "
                f"{array.shape} and dtype {array.dtype}, next to {len(arrays['pcs'])} cells. {origin(entry)}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"Expected {name!r} of {path} to be finite, found NaN or inf. {origin(entry)}")
    return {name: array if name == TIME else array.astype(np.float32) for name, array in arrays.items()}
