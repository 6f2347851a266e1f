"""The training engine."""

from uotcell.train._engine import fit, fit_many
from uotcell.train._history import History

__all__ = ["History", "fit", "fit_many"]
