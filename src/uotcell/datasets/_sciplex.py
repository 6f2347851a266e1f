"""Sci-Plex 2, as scPerturb published it."""

from __future__ import annotations

from os import PathLike

import anndata as ad
import numpy as np
import pandas as pd

from uotcell.datasets._fetch import fetch
from uotcell.datasets._published import add_pca, check_columns, choose_genes, expression, numbers, read_h5ad
from uotcell.datasets._registry import entries

CONTROL = "control"


def sciplex2(path: str | PathLike | None = None, *, known_hash: str | None = None, progress: bool = True) -> ad.AnnData:
    """A549 cells under four drugs at seven doses, sci-Plex 2 (Srivatsan et al. 2020), from scPerturb.

    23,733 human cells × 58,347 genes [1]_ in the harmonised file of scPerturb [2]_: BMS, Dex, Nutlin and SAHA, each
    with wells at dose zero. These are the controls. The file calls 529 other cells "control" whose well was not
    identified; they have no dose and are left out.

    Parameters
    ----------
    path
        The file ``SrivatsanTrapnell2020_sciplex2.h5ad`` from Zenodo, if you have it. It is downloaded otherwise
        (145 MB), once, to the folder in the environment variable ``UOTCELL_DATA_DIR`` or to the user's cache.
    known_hash
        Hash to require of a download, ``"sha256:…"`` or ``"md5:…"``. The one in the registry by default.
    progress
        Show a progress bar during a download.

    Returns
    -------
    A new object with

    - ``.X``: CSR float32 (n_cells, n_genes), log1p of counts scaled to 10,000 per cell.
    - ``.obs["perturbation"]``: categorical (n_cells,), "control" first, or the drug.
    - ``.obs["dose"]``: float64 (n_cells,), 0 for controls, as published; the file states no unit.
    - ``.obs["condition"]``: categorical (n_cells,), "control", or drug and dose, such as "SAHA 0.5".
    - ``.obs["drug_series"]``: categorical (n_cells,), the drug in whose series the well is, also for controls.
    - ``.obs["cell_type"]``: categorical (n_cells,), the cell line, A549.
    - ``.var["highly_variable"]``: bool (n_genes,), the 2,000 genes the PCA used (scanpy, flavour "seurat").
    - ``.var["mean"]``: float64 (n_genes,), mean of ``.X``, which the PCA subtracts.
    - ``.varm["PCs"]``: float32 (n_genes, 50), zero for genes the PCA did not use.
    - ``.obsm["X_pca"]``: float32 (n_cells, 50), fitted on all cells together.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, cell_type_key,
      perturbation_key, control.

    Raises
    ------
    FileNotFoundError, ConnectionError
        If there is no file at ``path``, or it cannot be downloaded.
    ValueError
        If the file is another one.

    References
    ----------
    .. [1] Srivatsan et al. (2020), Massively multiplex chemical transcriptomics at single-cell resolution, Science
       367(6473), 45-51, doi:10.1126/science.aax6234
    .. [2] Peidli et al. (2024), scPerturb: harmonized single-cell perturbation data, Nature Methods,
       doi:10.1038/s41592-023-02144-y

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.sciplex2()  # doctest: +SKIP
    """
    entry = entries()["sciplex2"]
    file = fetch(entry, path, known_hash=known_hash, progress=progress)
    raw = read_h5ad(file, entry)
    check_columns(raw.obs, ["perturbation", "dose_value", "cell_line"], file, entry)
    rows = np.flatnonzero(raw.obs["dose_value"].notna())
    kept = raw.obs.iloc[rows]
    dose = numbers(kept["dose_value"], file, entry)
    if not (dose == 0).any() or not (dose > 0).any():
        raise ValueError(f"Expected {file} to hold cells at dose 0 and above, found doses {np.unique(dose)[:9]}.")

    adata = ad.AnnData(
        expression(raw.X[rows]),
        obs=_conditions(kept["perturbation"].astype(str), dose, kept["cell_line"].astype(str)),
        var=pd.DataFrame(index=raw.var_names.astype(str).rename(None)),
    )
    adata.obs_names_make_unique()
    adata.var_names_make_unique()
    _log_normalise(adata)
    choose_genes(adata)
    add_pca(adata)
    adata.uns["dataset"] = entry.describe()
    return adata


def _conditions(drug: pd.Series, dose: np.ndarray, line: pd.Series) -> pd.DataFrame:
    """Columns of the cells; cells at dose zero are controls."""
    treated = dose > 0
    drugs, doses = np.unique(drug[treated]), np.unique(dose[treated])
    names = [f"{name} {value:g}" for name in drugs for value in doses]
    seen = [f"{name} {value:g}" for name, value in zip(drug, dose, strict=True)]
    condition = np.where(treated, seen, CONTROL)
    columns = {
        "perturbation": pd.Categorical(drug.where(treated, CONTROL), categories=[CONTROL, *drugs]),
        "dose": dose,
        "condition": pd.Categorical(condition, categories=[CONTROL, *(name for name in names if name in set(seen))]),
        "drug_series": pd.Categorical(drug),
        "cell_type": pd.Categorical(line),
    }
    return pd.DataFrame(columns, index=drug.index.astype(str).rename(None))


def _log_normalise(adata: ad.AnnData) -> None:
    import scanpy as sc

    sc.pp.normalize_total(adata, target_sum=1e4)
    adata.X = adata.X.log1p()
