"""What every measure of two weighted populations has in common."""

import numpy as np
import pytest

from uotcell import metrics

NAMES = [
    "classifier_auc",
    "correlation_error",
    "drug_signature_error",
    "energy_distance",
    "mean_r2",
    "mean_rmse",
    "mmd",
    "variance_error",
    "wasserstein",
    "wasserstein_1d",
]
PERFECT = {"classifier_auc": 0.5, "mean_r2": 1.0}
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(30, 3)), rng.normal(loc=[1.0, 0.5, 0.0], scale=0.7, size=(20, 3))
A, B = np.arange(30) % 4, np.arange(20) % 3 + 1  # a quarter of the predicted cells has no mass


@pytest.fixture(params=NAMES)
def measure(request):
    return getattr(metrics, request.param)


def test_weights_count_cells(measure):
    weighted = measure(X, Y, a=A, b=B)
    np.testing.assert_allclose(weighted, measure(np.repeat(X, A, axis=0), np.repeat(Y, B, axis=0)), rtol=1e-9)
    assert not np.allclose(weighted, measure(X, Y), rtol=1e-3)


def test_only_ratios_of_masses_count(measure):
    expected = measure(X, Y, a=A, b=B)
    np.testing.assert_allclose(measure(X, Y, a=5.0 * A, b=0.1 * B), expected, rtol=1e-9)
    np.testing.assert_allclose(measure(X, Y, a=np.full(30, 7)), measure(X, Y), rtol=1e-9)


def test_order_of_cells_does_not_count(measure):
    i, j = rng.permutation(30), rng.permutation(20)
    np.testing.assert_allclose(measure(X[i], Y[j], a=A[i], b=B[j]), measure(X, Y, a=A, b=B), rtol=1e-9)


def test_cells_without_mass_do_not_count(measure):
    far = np.concatenate([X, np.full((5, 3), 50.0)])
    a = np.concatenate([np.ones(30), np.zeros(5)])
    np.testing.assert_allclose(measure(far, Y, a=a), measure(X, Y), rtol=1e-9)
    np.testing.assert_allclose(measure(Y, far, b=a), measure(Y, X), rtol=1e-9)


def test_equal_populations(measure):
    order = rng.permutation(30)
    expected = PERFECT.get(measure.__name__, 0.0)
    np.testing.assert_allclose(measure(X, X), expected, atol=1e-12)
    np.testing.assert_allclose(measure(X, X[order], a=A, b=A[order]), expected, atol=1e-12)


def test_translation(measure):
    shift = np.array([100.0, -50.0, 3.0])
    if measure is metrics.mean_r2:
        # Its yardstick is the spread of the means over features, which only one shift of all features leaves alone.
        shift = 100.0
    np.testing.assert_allclose(measure(X + shift, Y + shift, a=A, b=B), measure(X, Y, a=A, b=B), rtol=1e-6)


def test_kinds_of_input(measure):
    value = measure(X, Y)
    assert isinstance(value, np.ndarray if measure is metrics.wasserstein_1d else float)
    np.testing.assert_array_equal(measure(X.tolist(), Y.tolist()), value)
    np.testing.assert_allclose(measure(X.astype(np.float32), Y.astype(np.float32)), value, rtol=1e-4)
    whole = np.round(10 * X).astype(int), np.round(10 * Y).astype(int)
    np.testing.assert_array_equal(measure(*whole), measure(*(side.astype(float) for side in whole)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": Y[:, :2]}, "Expected `y` to have 3 dimensions, .* found 2"),
        ({"x": X[0]}, r"Expected `x` .* found shape \(3,\)"),
        ({"x": np.where(X > 1.5, np.nan, X)}, "Expected `x` to be finite, found NaN"),
        ({"y": np.where(Y > 1.5, np.inf, Y)}, "Expected `y` to be finite, found NaN or inf"),
        ({"x": X[:0]}, r"Expected `x` to hold at least one cell .* found shape \(0, 3\)\. Check"),
        ({"y": Y[:0]}, r"Expected `y` to hold at least one cell .* found shape \(0, 3\)\. Check"),
        ({"x": X[:, :0], "y": Y[:, :0]}, r"Expected `x` to hold .* one dimension, found shape \(30, 0\)"),
        ({"a": np.ones(20)}, r"Expected `a` to have shape \(30,\).* found \(20,\)"),
        ({"b": -B}, "Expected `b` to be finite, non-negative"),
        ({"b": np.zeros(20)}, "Expected `b` to be .* not all zero"),
        ({"a": np.full(30, np.nan)}, "Expected `a` to be finite"),
    ],
)
def test_bad_input(measure, arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(**{"x": X, "y": Y, **arguments})
