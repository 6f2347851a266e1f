"""Unbalanced couplings between point clouds."""

from uotcell.ot._base import Coupling
from uotcell.ot._coupling import UnbalancedCoupling
from uotcell.ot._geodesic import Geodesic
from uotcell.ot._solve import solve_unbalanced
from uotcell.ot._structured import StructuredCoupling

__all__ = ["Coupling", "Geodesic", "StructuredCoupling", "UnbalancedCoupling", "solve_unbalanced"]
