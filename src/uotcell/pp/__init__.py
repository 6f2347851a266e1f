"""Preprocessing: what a fit may be told beforehand."""

from uotcell.pp._growth import score_growth

__all__ = ["score_growth"]
