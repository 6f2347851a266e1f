"""The training engine."""

from uotcell.train._engine import fit
from uotcell.train._history import History

__all__ = ["History", "fit"]
