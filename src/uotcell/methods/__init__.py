"""Estimators of transport maps."""

from uotcell.methods._base import Batch, Method, PairSummary
from uotcell.methods._flow import FlowMethod
from uotcell.methods._flow_matching import FlowMatching
from uotcell.methods._genot import GENOT
from uotcell.methods._icnn import ICNN
from uotcell.methods._monge_gap import MongeGap
from uotcell.methods._registry import register, resolve_method
from uotcell.methods._rescaling import RescalingNetworks
from uotcell.methods._transport_map import TransportMap

__all__ = [
    "GENOT",
    "ICNN",
    "Batch",
    "FlowMatching",
    "FlowMethod",
    "Method",
    "MongeGap",
    "PairSummary",
    "RescalingNetworks",
    "TransportMap",
    "register",
    "resolve_method",
]
