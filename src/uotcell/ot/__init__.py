"""Unbalanced couplings between point clouds."""

from uotcell.ot._coupling import UnbalancedCoupling
from uotcell.ot._solve import solve_unbalanced

__all__ = ["UnbalancedCoupling", "solve_unbalanced"]
