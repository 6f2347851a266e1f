"""Measures of fit and fate, as pure functions on arrays."""

from uotcell.metrics._distribution import effective_sample_size, sinkhorn_divergence
from uotcell.metrics._trajectory import clonal_fate_accuracy, landing_shares, transition_share

__all__ = [
    "clonal_fate_accuracy",
    "effective_sample_size",
    "landing_shares",
    "sinkhorn_divergence",
    "transition_share",
]
