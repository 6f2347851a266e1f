"""Plots."""

from ._benchmark import benchmark
from ._growth import growth
from ._history import history
from ._markers import weight_markers
from ._perturbation import perturbation_scatter
from ._velocity import velocity_stream

__all__ = ["benchmark", "growth", "history", "perturbation_scatter", "velocity_stream", "weight_markers"]
