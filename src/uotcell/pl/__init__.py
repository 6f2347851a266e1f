"""Plots."""

from ._benchmark import benchmark
from ._history import history
from ._perturbation import perturbation_scatter
from ._velocity import velocity_stream

__all__ = ["benchmark", "history", "perturbation_scatter", "velocity_stream"]
