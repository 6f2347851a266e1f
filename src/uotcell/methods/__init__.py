"""Estimators of transport maps."""

from uotcell.methods._base import Batch, Method, PairSummary
from uotcell.methods._icnn import ICNN
from uotcell.methods._monge_gap import MongeGap
from uotcell.methods._transport_map import TransportMap

__all__ = ["ICNN", "Batch", "Method", "MongeGap", "PairSummary", "TransportMap"]
