"""The training engine."""

from uotcell.train._engine import fit, fit_many
from uotcell.train._history import History
from uotcell.train._rescaling import fit_rescaling

__all__ = ["History", "fit", "fit_many", "fit_rescaling"]
