"""Tools that fit and write into AnnData."""

from uotcell.tl._trajectory import fit_trajectory

__all__ = ["fit_trajectory"]
