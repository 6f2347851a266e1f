"""Three small perturbation datasets shipped with the package, made by ``scripts/build_datasets.py``."""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata as ad
import numpy as np
import pandas as pd

from uotcell.datasets._embedded import _read
from uotcell.datasets._registry import entries


def crispr_screens() -> ad.AnnData:
    """Two CRISPR screens with single and double perturbations in four cell lines.

    5,961 human cells × 500 variable genes: activation (CRISPRa) in K562 leukaemia cells [1]_ and interference (CRISPRi)
    in three glioblastoma lines [2]_, about 100 cells for each perturbation and line.

    ==========  =========  ======================  ========  =====
    cell type   type       perturbations           controls  cells
    ==========  =========  ======================  ========  =====
    k562        CRISPRa    18 single, 15 double         100  3,375
    A172        CRISPRi    9 single                     100    850
    T98G        CRISPRi    9 single                     100    871
    U87MG       CRISPRi    9 single                     100    865
    ==========  =========  ======================  ========  =====

    The nine genes of the glioblastoma lines were also perturbed in K562, there by activation. Compare perturbed cells
    with controls of their own line: the lines differ more than anything within them.

    Returns
    -------
    A new object at each call, with

    - ``.X``: CSR float32 (5961, 500), log1p of counts scaled to 10,000 per cell over all genes, as published.
    - ``.obs["dataset"]``: categorical (5961,), "norman19" or "mcfaline23".
    - ``.obs["cell_type"]``: categorical (5961,), the cell line.
    - ``.obs["perturbation"]``: categorical (5961,), "control", one gene, or two joined by "+".
    - ``.obs["perturbation_type"]``: categorical (5961,), "CRISPRa" or "CRISPRi".
    - ``.var["highly_variable"]``: bool (500,), the genes the PCA used: all.
    - ``.var["mean"]``: float64 (500,), mean of ``.X``, which the PCA subtracts.
    - ``.varm["PCs"]``: float32 (500, 50), orthonormal loadings.
    - ``.obsm["X_pca"]``: float32 (5961, 50), ``(X − mean) @ PCs``, fitted on all cells together. These components hold
      41.7 % of the variance within cell lines; ones fitted on cells centred by line would hold 41.9 %.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, cell_type_key,
      perturbation_key, control.

    Notes
    -----
    Taken from the development data of altoslabs/perturbench, BSD-3-Clause. ``LICENSES.md`` next to the file has the
    full text. The scores ``X_pca`` are computed when the file is read, which keeps the package small.

    References
    ----------
    .. [1] Norman et al. (2019), Exploring genetic interaction manifolds constructed from rich single-cell phenotypes,
       Science 365(6455), 786-793, doi:10.1126/science.aax4438
    .. [2] McFaline-Figueroa et al. (2024), Multiplex single-cell chemical genomics reveals the kinase dependence of the
       response to targeted therapy, Cell Genomics 4(2), 100487, doi:10.1016/j.xgen.2023.100487

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.crispr_screens()
    >>> adata.obs["cell_type"].value_counts().to_dict()
    {'k562': 3375, 'T98G': 871, 'U87MG': 865, 'A172': 850}
    """
    adata = _read("crispr_screens")
    loadings = adata.varm["PCs"].astype(np.float64)
    adata.obsm["X_pca"] = (adata.X @ loadings - adata.var["mean"].to_numpy() @ loadings).astype(np.float32)
    return adata


def melanoma_4i() -> ad.AnnData:
    """Melanoma cells 8 and 48 hours into treatment with trametinib and erlotinib, imaged by 4i.

    3,441 human cells × 50 features from iterative indirect immunofluorescence imaging [1]_: the shape of nucleus and
    cell, and mean intensities of 14 stains in nucleus and cell. The number of cells fell to three quarters, as in the
    full experiment (:func:`melanoma_4i_drug_counts`): more died than divided, and mass is not conserved.

    ======  =====
    hour    cells
    ======  =====
    8       1,962
    48      1,479
    ======  =====

    Returns
    -------
    A new object at each call, with

    - ``.X``: dense float32 (3441, 50), features as published: scaled, but neither centred on these cells nor to
      unit deviation, which runs from 0.04 (pERK) to 1.8 (MelA) at 8 hours.
    - ``.obs["hour"]``: float64 (3441,), hours since the drugs were given: 8 or 48.
    - ``.obs["drug"]``: categorical (3441,), "trametinib_erlotinib" throughout; names as in
      :func:`melanoma_4i_drug_counts`.
    - ``.var_names``: "Nuclei_Morphology_Area", "Intensity_mean_ClCasp3", …; a name without ``Nuclei_`` is of the cell.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key,
      perturbation_key.

    Notes
    -----
    Taken from the data of matteopariset/unbalanced_sb, MIT. ``LICENSES.md`` next to the file has the full text. No
    untreated cells were published with them.

    References
    ----------
    .. [1] Pariset, Hsieh, Bunne, Krause, De Bortoli (2023), Unbalanced diffusion Schrödinger bridge, arXiv:2306.09099

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.melanoma_4i()
    >>> adata.obs["hour"].value_counts().to_dict()
    {8.0: 1962, 48.0: 1479}
    """
    return _read("melanoma_4i")


def melanoma_4i_drug_counts() -> pd.DataFrame:
    """Cells counted under each of the 35 drugs of the experiment that :func:`melanoma_4i` comes from.

    Returns
    -------
    One row per drug, indexed by its name; partners of a combination are joined by an underscore.

    - ``cells_8h``: int64, cells 8 hours after the drug was given.
    - ``ratio_24h_to_8h``, ``ratio_48h_to_8h``: float64, cells at 24 and 48 hours over those at 8 hours. 0.05 is nearly
      complete death, 2.2 more than one division.

    ``.attrs["dataset"]``: dict of str: name, description, citation, source, license.

    Notes
    -----
    Taken from the tables printed in matteopariset/unbalanced_sb, MIT.

    Examples
    --------
    >>> import uotcell as uc
    >>> counts = uc.datasets.melanoma_4i_drug_counts()
    >>> float(counts.loc["panobinostat", "ratio_48h_to_8h"])
    0.227528
    """
    entry = entries()["melanoma_4i_drug_counts"]
    with as_file(files("uotcell.datasets") / "data" / entry.file) as path:
        counts = pd.read_csv(path, index_col="drug")
    counts.attrs["dataset"] = entry.describe()
    return counts


def glioblastoma() -> ad.AnnData:
    """Slices of glioblastoma from five patients, with and without panobinostat.

    1,500 human cells × 300 genes, 150 cells drawn at random for each patient and condition from the published 500
    [1]_. Slices of fresh tumours were kept for a day with panobinostat (0.2 µM) or its vehicle, so every patient is a
    small experiment with a control of its own, and a patient can be held out.

    Returns
    -------
    A new object at each call, with

    - ``.X``: CSR float32 (1500, 300), counts ``c`` under the shifted logarithm ``log(4·0.05·c/s + 1)/√0.05``, where
      ``s`` is the size factor of the cell.
    - ``.obs["patient"]``: categorical (1500,), "PW030", "PW032", "PW034", "PW036", "PW040".
    - ``.obs["condition"]``: categorical (1500,), "control" or "panobinostat".
    - ``.var_names``: Ensembl gene identifiers; ``.var["symbol"]``: object (300,), gene symbols.
    - ``.var["highly_variable"]``: bool (300,), the genes the PCA used: all.
    - ``.var["mean"]``: float64 (300,), mean of ``.X``, which the PCA subtracts.
    - ``.varm["PCs"]``: float32 (300, 30), orthonormal loadings.
    - ``.obsm["X_pca"]``: float32 (1500, 30), ``(X − mean) @ PCs``, fitted on all cells together.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep,
      perturbation_key, control, batch_key.

    Notes
    -----
    Taken from the example data of const-ae/lemur, MIT. ``LICENSES.md`` next to the file has the full text.

    References
    ----------
    .. [1] Zhao et al. (2021), Deconvolution of cell type-specific drug responses in human tumor tissue with single-cell
       RNA-seq, Genome Medicine 13, 82, doi:10.1186/s13073-021-00894-y

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.glioblastoma()
    >>> adata.obs.groupby("condition", observed=True).size().to_dict()
    {'control': 750, 'panobinostat': 750}
    """
    return _read("glioblastoma")
