"""Tools that fit and write into AnnData."""

from uotcell.tl._benchmark import benchmark_perturbation
from uotcell.tl._clonal_fate import clonal_fate
from uotcell.tl._direction import cross_boundary_direction
from uotcell.tl._interpolation import evaluate_interpolation
from uotcell.tl._perturbation import fit_perturbation
from uotcell.tl._trajectory import fit_trajectory
from uotcell.tl._transition_matrix import transition_matrix
from uotcell.tl._transitions import transitions
from uotcell.tl._translation import fit_translation

__all__ = [
    "benchmark_perturbation",
    "clonal_fate",
    "cross_boundary_direction",
    "evaluate_interpolation",
    "fit_perturbation",
    "fit_trajectory",
    "fit_translation",
    "transition_matrix",
    "transitions",
]
