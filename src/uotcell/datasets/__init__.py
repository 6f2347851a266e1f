"""Small real datasets that come with the package, a simulated drug screen, and readers of published files."""

from uotcell.datasets._cellot import read_cellot_4i
from uotcell.datasets._drug_response import DrugResponse, drug_responses
from uotcell.datasets._drug_simulator import simulate_drug_screen
from uotcell.datasets._embedded import hematopoiesis, reprogramming
from uotcell.datasets._pancreas_transitions import pancreas_transitions
from uotcell.datasets._perturbations import crispr_screens, glioblastoma, melanoma_4i, melanoma_4i_drug_counts
from uotcell.datasets._time_courses import emt, ipsc_cardio

__all__ = [
    "DrugResponse",
    "crispr_screens",
    "drug_responses",
    "emt",
    "glioblastoma",
    "hematopoiesis",
    "ipsc_cardio",
    "melanoma_4i",
    "melanoma_4i_drug_counts",
    "pancreas_transitions",
    "read_cellot_4i",
    "reprogramming",
    "simulate_drug_screen",
]
