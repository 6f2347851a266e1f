"""Unbalanced couplings between point clouds."""

from uotcell.ot._base import Coupling
from uotcell.ot._coupling import UnbalancedCoupling
from uotcell.ot._geodesic import Geodesic
from uotcell.ot._quadratic import solve_quadratic
from uotcell.ot._quadratic_coupling import QuadraticCoupling
from uotcell.ot._solve import solve_unbalanced
from uotcell.ot._structured import StructuredCoupling

__all__ = [
    "Coupling",
    "Geodesic",
    "QuadraticCoupling",
    "StructuredCoupling",
    "UnbalancedCoupling",
    "solve_quadratic",
    "solve_unbalanced",
]
