"""Plots."""

from ._history import history
from ._velocity import velocity_stream

__all__ = ["history", "velocity_stream"]
