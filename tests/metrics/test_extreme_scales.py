"""Measures on raw cells in units far from one: as in units of one, or refused."""

import numpy as np
import pytest

import uotcell as uc

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 3)), RNG.normal(size=(24, 3)) * 1.2 + 1
LABELS = np.arange(24) % 3

# Each with the power of the unit it is in.
MEASURES = {
    "sinkhorn_divergence": (lambda x, y, unit: uc.metrics.sinkhorn_divergence(x, y, epsilon=0.5 * unit**2), 2),
    "monge_gap": (lambda x, y, unit: uc.metrics.monge_gap(x[:24], y), 2),
    "energy_distance": (lambda x, y, unit: uc.metrics.energy_distance(x, y), 1),
    "wasserstein": (lambda x, y, unit: uc.metrics.wasserstein(x, y, order=2), 1),
    "wasserstein_1d": (lambda x, y, unit: uc.metrics.wasserstein_1d(x, y), 1),
    "mmd": (lambda x, y, unit: uc.metrics.mmd(x, y), 0),
    "mean_r2": (lambda x, y, unit: uc.metrics.mean_r2(x, y), 0),
    "variance_error": (lambda x, y, unit: uc.metrics.variance_error(x, y), 0),
    "correlation_error": (lambda x, y, unit: uc.metrics.correlation_error(x, y), 0),
    "classifier_auc": (lambda x, y, unit: uc.metrics.classifier_auc(x, y), 0),
    "landing_shares": (lambda x, y, unit: uc.metrics.landing_shares(x, y, LABELS)[0], 0),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("unit", [1e-14, 1e-6, 1e8, 1e14])
def test_units_change_no_measure(name, unit):
    measure, power = MEASURES[name]
    np.testing.assert_allclose(measure(X * unit, Y * unit, unit) / unit**power, measure(X, Y, 1.0), rtol=1e-5)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_what_float32_does_not_hold_is_relative_or_refused(unit):
    # The divergence is computed in units of its own ε, the gap is not: its cost may be any.
    measure, _ = MEASURES["sinkhorn_divergence"]
    np.testing.assert_allclose(measure(X * unit, Y * unit, unit) / unit**2, measure(X, Y, 1.0), rtol=1e-5)
    with pytest.raises(ValueError, match=r"differ by 1e-15 to 1e\+15"):
        uc.metrics.monge_gap(X * unit, X * unit + unit)


def test_an_epsilon_must_be_positive():
    with pytest.raises(ValueError, match="`epsilon` to be a positive number, found 0"):
        uc.metrics.sinkhorn_divergence(X, Y, epsilon=0)


def test_a_divergence_that_one_cell_decides_says_so():
    far = X.copy()
    far[7] += 1e6
    with pytest.raises(uc.ConvergenceError, match=r"Raise `epsilon`, or remove far cells"):
        uc.metrics.sinkhorn_divergence(far, Y, epsilon=0.5)
    # In float64, where one cell weighs what one cell weighs.
    assert uc.metrics.wasserstein(far, Y[:20]) == pytest.approx(np.sqrt(3) * 1e6 / 30, rel=1e-3)


def test_whole_numbers_of_one_byte_do_not_wrap_around():
    x, y = (np.round(np.abs(side) * 40).astype(np.uint8) for side in (X, Y))
    for measure, _ in MEASURES.values():
        np.testing.assert_allclose(measure(x, y, 40.0), measure(x.astype(float), y.astype(float), 40.0), rtol=1e-6)
