"""Problems on AnnData: pair cells, solve, fit, write back."""

from uotcell.problems._base import FittedPair
from uotcell.problems._perturbation import PerturbationProblem
from uotcell.problems._perturbation_pair import PerturbationPair
from uotcell.problems._temporal import TemporalPair, TemporalProblem
from uotcell.problems._translation import TranslationProblem

__all__ = [
    "FittedPair",
    "PerturbationPair",
    "PerturbationProblem",
    "TemporalPair",
    "TemporalProblem",
    "TranslationProblem",
]
