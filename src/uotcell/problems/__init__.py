"""Problems on AnnData: pair cells, solve, fit, write back."""

from uotcell.problems._base import FittedPair
from uotcell.problems._temporal import TemporalProblem

__all__ = ["FittedPair", "TemporalProblem"]
