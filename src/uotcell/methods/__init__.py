"""Estimators of transport maps."""

from uotcell.methods._base import Batch, Method, Moments, TransportMap
from uotcell.methods._icnn import ICNN

__all__ = ["ICNN", "Batch", "Method", "Moments", "TransportMap"]
