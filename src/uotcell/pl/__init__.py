"""Plots."""

from ._animation import animate_interpolation
from ._benchmark import benchmark
from ._history import history
from ._interpolation import interpolation
from ._perturbation import perturbation_scatter
from ._sankey import sankey
from ._transitions import transitions
from ._velocity import velocity_stream

__all__ = [
    "animate_interpolation",
    "benchmark",
    "history",
    "interpolation",
    "perturbation_scatter",
    "sankey",
    "transitions",
    "velocity_stream",
]
