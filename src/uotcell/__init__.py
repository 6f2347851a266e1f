"""Unbalanced neural optimal transport for single cells that divide, die or appear between two measurements."""

from uotcell import benchmark, datasets, methods, metrics, ot, pl, pp, problems, tl, train
from uotcell._errors import ConvergenceError
from uotcell._load import load

__all__ = [
    "ConvergenceError",
    "benchmark",
    "datasets",
    "load",
    "methods",
    "metrics",
    "ot",
    "pl",
    "pp",
    "problems",
    "tl",
    "train",
]
