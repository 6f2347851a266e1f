"""Unbalanced neural optimal transport for single cells that divide, die or appear between two measurements."""

from uotcell import benchmark, datasets, methods, metrics, ot, pl, pp, problems, tl, train
from uotcell._errors import ConvergenceError

__all__ = [
    "ConvergenceError",
    "benchmark",
    "datasets",
    "methods",
    "metrics",
    "ot",
    "pl",
    "pp",
    "problems",
    "tl",
    "train",
]
