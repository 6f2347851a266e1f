"""Couplings against the closed form between Gaussians."""

from functools import cache

import numpy as np
import pytest
from gaussian_oracle import make_oracle

import uotcell as uc


@cache
def solved(dim, penalty):
    """The closed form of this penalty, cells and their coupling."""
    oracle = make_oracle(dim, penalty)
    x, y = oracle.sample(4000, seed=1)
    return oracle, x, y, uc.ot.solve_unbalanced(x, y, marginal_penalty=oracle.penalty / oracle.mean_cost)


@pytest.mark.parametrize(
    ("dim", "penalty", "mean_bound"),
    [(2, 4.0, 0.05), (2, 12.0, 0.05), (2, 36.0, 0.05), (8, 6.0, 0.15), (8, 12.0, 0.15), (8, 36.0, 0.15)],
)
def test_rescaled_moments(dim, penalty, mean_bound):
    oracle, x, y, coupling = solved(dim, penalty)
    sides = (
        (x, coupling.source_weights, oracle.rescaled_source, oracle.source_mean),
        (y, coupling.target_weights, oracle.rescaled_target, oracle.target_mean),
    )
    for cells, weights, (mean, var), prior_mean in sides:
        weights = np.asarray(weights, np.float64) / np.asarray(weights, np.float64).sum()
        found = weights @ cells
        assert np.linalg.norm(found - mean) <= mean_bound * np.linalg.norm(mean - prior_mean)
        assert np.abs(weights @ (cells - found) ** 2 / var - 1).max() <= 0.10


@pytest.mark.parametrize("penalty", [4.0, 12.0, 36.0])
def test_entropic_map(penalty):
    oracle, _, _, coupling = solved(2, penalty)
    assert oracle.l2_uvp(coupling.push) <= 2.0


def test_infinite_penalty_is_the_balanced_bures_map():
    oracle, x, y, coupling = solved(2, 1e6)
    bures = np.sqrt(oracle.target_var / oracle.source_var)
    points = x[:500]
    np.testing.assert_allclose(oracle.push(points), oracle.target_mean + bures * points, atol=1e-4)
    assert oracle.l2_uvp(coupling.push) <= 2.0
    np.testing.assert_allclose(np.asarray(coupling.source_weights) * 4000, 1, atol=0.01)
    balanced = uc.ot.solve_unbalanced(x, y, marginal_penalty=np.inf)
    np.testing.assert_allclose(balanced.push(points), coupling.push(points), atol=0.02)
    assert balanced.tau == (1.0, 1.0)


def test_weights_of_unseen_cells_are_the_closed_form():
    oracle, _, _, coupling = solved(2, 12.0)
    mean, var = oracle.rescaled_source
    # log ã/a of the closed form, up to the constant that sets the mass.
    x = oracle.sample(1000, seed=7)[0]
    log_ratio = -0.5 * ((x - mean) ** 2 / var - (x - oracle.source_mean) ** 2 / oracle.source_var).sum(axis=1)
    found = np.log(coupling.source_rescaling(x))
    slope, _ = np.polyfit(log_ratio, found, 1)
    assert np.corrcoef(log_ratio, found)[0, 1] > 0.995
    assert slope == pytest.approx(1.0, abs=0.05)
