"""Two small time courses shipped with the package, made by ``scripts/build_datasets.py``."""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata as ad

from uotcell.datasets._registry import entries


def reprogramming() -> ad.AnnData:
    """Fibroblasts on their way to induced pluripotent stem cells, days 10 to 11.

    1,000 mouse cells × 1,479 genes in serum conditions [1]_, drawn at random from three time points of the published
    course:

    ===========  =======  ========  =======  =====
    cell type    day 10   day 10.5  day 11   all
    ===========  =======  ========  =======  =====
    Stromal           29       162      233    424
    Epithelial        72        80       65    217
    Trophoblast        0         9       21     30
    IPS                1         2        0      3
    Neural             0         1        0      1
    unknown          216        62       47    325
    all              318       316      366  1,000
    ===========  =======  ========  =======  =====

    ``unknown`` is a cell in none of the authors' cell sets. Two thirds of day 10 are unknown, so cell-type transitions
    are best judged from day 10.5 to day 11.

    Returns
    -------
    A new object at each call, with

    - ``.X``: CSR float32 (1000, 1479), log1p of counts scaled to 10,000 per cell over these genes.
    - ``.obs["day"]``: float64 (1000,), days since the start: 10, 10.5 or 11.
    - ``.obs["cell_type"]``: categorical (1000,).
    - ``.obs["lane"]``: categorical (1000,), "C1" or "C2", the part of the cell's name between medium and barcode. Both
      lanes hold cells of every day.
    - ``.var["highly_variable"]``: bool (1479,), the genes the PCA used: the 1,108 that some cell here expresses.
    - ``.var["mean"]``: float64 (1479,), mean of ``.X``, which the PCA subtracts.
    - ``.varm["PCs"]``: float32 (1479, 30), orthonormal loadings, zero for genes the PCA did not use.
    - ``.obsm["X_pca"]``: float32 (1000, 30), ``(X − mean) @ PCs``, fitted on the cells of all days together.
    - ``.obsm["X_umap"]``: float32 (1000, 2), UMAP of the 15 nearest neighbours in ``X_pca``.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key,
      cell_type_key.

    Notes
    -----
    Taken from the test data of theislab/moscot, BSD-3-Clause. ``LICENSES.md`` next to the file has the full text.

    References
    ----------
    .. [1] Schiebinger et al. (2019), Optimal-transport analysis of single-cell gene expression identifies developmental
       trajectories in reprogramming, Cell 176(4), 928-943, doi:10.1016/j.cell.2019.01.006

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> adata.obs["day"].value_counts().sort_index().to_dict()
    {10.0: 318, 10.5: 316, 11.0: 366}
    """
    return _read("reprogramming")


def hematopoiesis() -> ad.AnnData:
    """Blood progenitors differentiating in culture with clonal barcodes (LARRY), days 2 to 6.

    781 mouse cells × 2,481 genes, a part of the published course [1]_. Every cell carries exactly one of 339 barcodes:
    cells that share one descend from the same progenitor. 113 clones were seen at both day 4 (180 of their cells) and
    day 6 (247), which makes them a test of any map from day 4 to day 6.

    ==========  =====  =====  =====  ===
    cell type   day 2  day 4  day 6  all
    ==========  =====  =====  =====  ===
    undiff         32    103    123  258
    Monocyte        0     97    104  201
    Baso            2     51     77  130
    Neutrophil      0     42     65  107
    Mast            0      9     34   43
    Meg             0      5     13   18
    Erythroid       0      3      5    8
    Lymphoid        0      1      3    4
    pDC             0      3      1    4
    Ccr7_DC         0      1      2    3
    Eos             0      1      2    3
    Neu_Mon         0      0      2    2
    all            34    316    431  781
    ==========  =====  =====  =====  ===

    Day 2 has only 34 cells, too few to fit a map from.

    Returns
    -------
    A new object at each call, with

    - ``.X``: CSR float32 (781, 2481), log1p of counts scaled to 10,000 per cell over these genes.
    - ``.obs["day"]``: float64 (781,), days in culture: 2, 4 or 6.
    - ``.obs["cell_type"]``: categorical (781,), called ``state`` where it was published.
    - ``.var["highly_variable"]``: bool (2481,), the 1,000 genes the PCA used (scanpy, flavour "seurat").
    - ``.var["mean"]``: float64 (2481,), mean of ``.X``, which the PCA subtracts.
    - ``.varm["PCs"]``: float32 (2481, 30), orthonormal loadings, zero for genes the PCA did not use.
    - ``.obsm["X_pca"]``: float32 (781, 30), ``(X − mean) @ PCs``, fitted on the cells of all days together.
    - ``.obsm["X_umap"]``: float32 (781, 2), UMAP of the 15 nearest neighbours in ``X_pca``.
    - ``.obsm["X_spring"]``: float32 (781, 2), the authors' SPRING layout.
    - ``.obsm["X_clone"]``: CSR float32 (781, 339), 1 where the cell carries the barcode.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key,
      cell_type_key.

    Notes
    -----
    Taken from the test data of AllonKleinLab/cospar, MIT. ``LICENSES.md`` next to the file has the full text.

    References
    ----------
    .. [1] Weinreb et al. (2020), Lineage tracing on transcriptional landscapes links state to fate during
       differentiation, Science 367(6479), eaaw3381, doi:10.1126/science.aaw3381

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.hematopoiesis()
    >>> adata.obs["day"].value_counts().sort_index().to_dict()
    {2.0: 34, 4.0: 316, 6.0: 431}
    """
    return _read("hematopoiesis")


def _read(name: str) -> ad.AnnData:
    entry = entries()[name]
    # A package can be imported from an archive: as_file gives h5py the real file it needs.
    with as_file(files("uotcell.datasets") / "data" / entry.file) as path:
        adata = ad.read_h5ad(path)
    adata.uns["dataset"] = entry.describe()
    return adata
