"""Datasets: small real ones in the package, a simulated drug screen, and published ones by hash or from your file.

:func:`available` lists them. Every loader returns a new AnnData of the same layout. ``.uns["dataset"]`` holds the name,
description, citation, source and license as str, and, where they apply, which keys to use:

- ``use_rep``: the representation to fit in, a key of ``.obsm`` or "X"; float32 and finite.
- ``time_key``: the column of ``.obs`` with times, float64.
- ``cell_type_key``, ``batch_key``: categorical columns of ``.obs``.
- ``perturbation_key`` and ``control``: the categorical column of ``.obs`` with the perturbation, its value for none.

No value of these columns is missing. ``.X`` is float32, CSR for expression and dense for images and embeddings. Where
``use_rep`` is a PCA computed for uotcell, ``.obsm["X_pca"]`` is ``(X − mean) @ PCs`` with ``.var["mean"]`` and
``.varm["PCs"]``. :func:`melanoma_4i_drug_counts` is a table, described in ``.attrs["dataset"]``.
"""

from uotcell.datasets._cellot import read_cellot_4i
from uotcell.datasets._drug_response import DrugResponse, drug_responses
from uotcell.datasets._drug_simulator import simulate_drug_screen
from uotcell.datasets._embedded import hematopoiesis, reprogramming
from uotcell.datasets._embryoid_body import embryoid_body
from uotcell.datasets._pancreas import pancreas
from uotcell.datasets._pancreas_transitions import pancreas_transitions
from uotcell.datasets._perturbations import crispr_screens, glioblastoma, melanoma_4i, melanoma_4i_drug_counts
from uotcell.datasets._registry import available
from uotcell.datasets._reprogramming_serum import reprogramming_serum
from uotcell.datasets._sciplex import sciplex2
from uotcell.datasets._time_courses import emt, ipsc_cardio

__all__ = [
    "DrugResponse",
    "available",
    "crispr_screens",
    "drug_responses",
    "embryoid_body",
    "emt",
    "glioblastoma",
    "hematopoiesis",
    "ipsc_cardio",
    "melanoma_4i",
    "melanoma_4i_drug_counts",
    "pancreas",
    "pancreas_transitions",
    "read_cellot_4i",
    "reprogramming",
    "reprogramming_serum",
    "sciplex2",
    "simulate_drug_screen",
]
