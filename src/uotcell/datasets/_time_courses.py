"""Two time courses published as an embedding alone, made by ``scripts/build_datasets.py``."""

from __future__ import annotations

import anndata as ad

from uotcell.datasets._embedded import _read


def emt() -> ad.AnnData:
    """Lung cancer cells in the epithelial-mesenchymal transition under TGFB1, four time points.

    3,133 human A549 cells [1]_ in an embedding of ten dimensions. No genes were published with it.

    ====  =====
    time  cells
    ====  =====
    0       577
    1       885
    2       788
    3       883
    ====  =====

    Returns
    -------
    A new object at each call, with

    - ``.obsm["X_embedding"]``: float32 (3133, 10), the coordinates as published, the ``use_rep`` to fit in. The axes
      are uncorrelated and each runs from 0 to 1, as those of a PCA whose scores were rescaled axis by axis; how they
      were computed is not said where they come from. Distances in them are not distances in expression.
    - ``.X``: dense float32 (3133, 10), the same coordinates, not expression.
    - ``.var_names``: "x1" to "x10", the axes.
    - ``.obs["time"]``: float64 (3133,), the number of the time point: 0, 1, 2 or 3. These are not hours.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key.

    Notes
    -----
    Taken from the data of zhenyiizhang/DeepRUOTv2, MIT. ``LICENSES.md`` next to the file has the full text.

    References
    ----------
    .. [1] Cook and Vanderhyden (2020), Context specificity of the EMT transcriptional response, Nature Communications
       11, 2142, doi:10.1038/s41467-020-16066-2

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.emt()
    >>> adata.obs["time"].value_counts().sort_index().to_dict()
    {0.0: 577, 1.0: 885, 2.0: 788, 3.0: 883}
    """
    return _read_embedding("emt")


def ipsc_cardio() -> ad.AnnData:
    """Induced pluripotent stem cells on their way to cardiomyocytes, days 0 to 5.

    1,896 human cells [1]_, measured by single-cell qPCR, in an embedding of four dimensions [2]_. No genes were
    published with it.

    ===  =====
    day  cells
    ===  =====
    0      231
    1      166
    1.5     93
    2      211
    2.5    122
    3      258
    4      456
    5      359
    ===  =====

    Returns
    -------
    A new object at each call, with

    - ``.obsm["X_embedding"]``: float32 (1896, 4), the coordinates as published, the ``use_rep`` to fit in. The axes are
      centred and uncorrelated and each spans 3 units, as those of a PCA whose scores were rescaled axis by axis; how
      they were computed is not said where they come from. Distances in them are not distances in expression.
    - ``.X``: dense float32 (1896, 4), the same coordinates, not expression.
    - ``.var_names``: "x1" to "x4", the axes.
    - ``.obs["day"]``: float64 (1896,), days since the start: 0, 1, 1.5, 2, 2.5, 3, 4 or 5.
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, time_key.

    Notes
    -----
    Taken from the inputs of yutongo/TIGON, MIT. ``LICENSES.md`` next to the file has the terms.

    References
    ----------
    .. [1] Bargaje et al. (2017), Cell population structure prior to bifurcation predicts efficiency of directed
       differentiation in human induced pluripotent cells, PNAS 114(9), 2271-2276, doi:10.1073/pnas.1621412114
    .. [2] Sha, Qiu, Zhou, Nie (2024), Reconstructing growth and dynamic trajectories from single-cell transcriptomics
       data, Nature Machine Intelligence 6, 25-39, doi:10.1038/s42256-023-00763-w

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.ipsc_cardio()
    >>> adata.obs["day"].value_counts().sort_index().to_dict()
    {0.0: 231, 1.0: 166, 1.5: 93, 2.0: 211, 2.5: 122, 3.0: 258, 4.0: 456, 5.0: 359}
    """
    return _read_embedding("ipsc_cardio")


def _read_embedding(name: str) -> ad.AnnData:
    # The coordinates are stored once, which keeps the package small.
    adata = _read(name)
    adata.obsm["X_embedding"] = adata.X.copy()
    return adata
