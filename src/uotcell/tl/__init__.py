"""Tools that fit and write into AnnData."""

from uotcell.tl._benchmark import benchmark_perturbation
from uotcell.tl._interpolation import evaluate_interpolation
from uotcell.tl._perturbation import fit_perturbation
from uotcell.tl._trajectory import fit_trajectory
from uotcell.tl._transition_matrix import transition_matrix
from uotcell.tl._translation import fit_translation

__all__ = [
    "benchmark_perturbation",
    "evaluate_interpolation",
    "fit_perturbation",
    "fit_trajectory",
    "fit_translation",
    "transition_matrix",
]
