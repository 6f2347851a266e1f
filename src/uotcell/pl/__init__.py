"""Plots."""

from ._animation import animate_interpolation
from ._benchmark import benchmark
from ._growth import growth
from ._history import history
from ._interpolation import interpolation
from ._markers import weight_markers
from ._perturbation import perturbation_scatter
from ._sankey import sankey
from ._transitions import transitions
from ._velocity import velocity_stream

__all__ = [
    "animate_interpolation",
    "benchmark",
    "growth",
    "history",
    "interpolation",
    "perturbation_scatter",
    "sankey",
    "transitions",
    "velocity_stream",
    "weight_markers",
]
