"""Measures of fit and fate, as pure functions on arrays."""

from uotcell.metrics._classifier import classifier_auc
from uotcell.metrics._direction import cross_boundary_direction
from uotcell.metrics._discrimination import discrimination_rank
from uotcell.metrics._distribution import effective_sample_size, sinkhorn_divergence, wasserstein_1d
from uotcell.metrics._foscttm import foscttm
from uotcell.metrics._kernel import energy_distance, mmd
from uotcell.metrics._mass import mass_by_cell_type, transported_mass
from uotcell.metrics._monge_gap import monge_gap
from uotcell.metrics._perturbation import (
    correlation_error,
    drug_signature_error,
    mean_r2,
    mean_rmse,
    variance_error,
)
from uotcell.metrics._trajectory import clonal_fate_accuracy, landing_shares, transition_share
from uotcell.metrics._wasserstein import wasserstein

__all__ = [
    "classifier_auc",
    "clonal_fate_accuracy",
    "correlation_error",
    "cross_boundary_direction",
    "discrimination_rank",
    "drug_signature_error",
    "effective_sample_size",
    "energy_distance",
    "foscttm",
    "landing_shares",
    "mass_by_cell_type",
    "mean_r2",
    "mean_rmse",
    "mmd",
    "monge_gap",
    "sinkhorn_divergence",
    "transition_share",
    "transported_mass",
    "variance_error",
    "wasserstein",
    "wasserstein_1d",
]
