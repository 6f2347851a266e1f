"""The Wasserstein distance against POT's exact solver and the closed form in one dimension."""

import jax
import numpy as np
import ot
import pytest
from scipy import stats

from uotcell.metrics import wasserstein

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(60, 3)), rng.normal(loc=[1.0, 0.5, 0.0], scale=0.7, size=(40, 3))
A, B = rng.uniform(0.2, 2.0, size=60), rng.uniform(0.2, 2.0, size=40)
COUNTS_A, COUNTS_B = np.arange(60) % 4, np.r_[np.arange(39) % 3 + 1, 12]  # 90 copies on either side


def exact(x, y, a, b, order):
    """Distance from POT's network simplex, which takes any masses."""
    cost = ot.dist(x, y, metric={1: "euclidean", 2: "sqeuclidean"}[order])
    return ot.emd2(a / a.sum(), b / b.sum(), cost, numItermax=1_000_000) ** (1 / order)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("n", "m", "a", "b"),
    [
        (40, 40, np.ones(40), np.ones(40)),
        (60, 40, np.ones(60), np.ones(40)),
        (60, 40, COUNTS_A, COUNTS_B),
        (1, 40, np.ones(1), np.ones(40)),
    ],
    ids=["equal", "common multiple", "counts", "one cell"],
)
def test_is_exact_where_masses_are_multiples(n, m, a, b, order):
    expected = exact(X[:n], Y[:m], a.astype(float), b.astype(float), order)
    value = wasserstein(X[:n], Y[:m], a=a, b=b, order=order)
    assert value == pytest.approx(expected, rel=1e-9)
    assert wasserstein(X[:n], Y[:m], a=a, b=b, order=order, rng=1) == value


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_is_close_for_any_masses(order, seed):
    value = wasserstein(X, Y, a=A, b=B, order=order, rng=seed)
    assert value == pytest.approx(exact(X, Y, A, B, order), rel=0.01)


@pytest.mark.parametrize("order", [1, 2])
def test_more_points_are_closer(order):
    expected = exact(X, Y, A, B, order)
    errors = [
        np.mean([abs(wasserstein(X, Y, a=A, b=B, order=order, max_points=k, rng=seed) - expected) for seed in range(8)])
        for k in (30, 120, 480)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_misplaced_mass_bounds_the_error():
    # Each cell's mass is off by less than 1/k, so less than (cells on the side)/k moves, by no more than the diameter.
    points = np.concatenate([X, Y])
    diameter = ot.dist(points, points, metric="euclidean").max()
    for k in (150, 600):
        error = abs(wasserstein(X, Y, a=A, b=B, max_points=k) - exact(X, Y, A, B, 1))
        assert error < diameter * (60 + 40) / k


@pytest.mark.parametrize("order", [1, 2])
def test_more_cells_than_points(order):
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(700, 2)), generator.normal(loc=1.0, size=(500, 2))
    a, b = generator.uniform(0.2, 2.0, size=700), generator.uniform(0.2, 2.0, size=500)
    values = [wasserstein(x, y, a=a, b=b, order=order, max_points=250, rng=seed) for seed in range(5)]
    assert len(set(values)) == 5
    np.testing.assert_allclose(values, exact(x, y, a, b, order), rtol=0.1)


def test_agrees_with_the_closed_form_in_one_dimension():
    for feature in range(3):
        x, y = X[:, [feature]], Y[:, [feature]]
        uniform = stats.wasserstein_distance(x[:, 0], y[:, 0])
        assert wasserstein(x, y) == pytest.approx(uniform, rel=1e-9)
        weighted = stats.wasserstein_distance(x[:, 0], y[:, 0], A, B)
        assert wasserstein(x, y, a=A, b=B) == pytest.approx(weighted, rel=0.02)
        quantiles = np.sort(x[:40, 0]) - np.sort(y[:, 0])
        assert wasserstein(x[:40], y, order=2) == pytest.approx(np.sqrt((quantiles**2).mean()), rel=1e-9)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("max_points", [25, 1_000])
def test_translation(order, max_points):
    shift = np.array([3.0, 0.0, -4.0])
    value = wasserstein(X, X + shift, a=A, b=A, order=order, max_points=max_points)
    assert value == pytest.approx(5.0, rel=1e-9)


@pytest.mark.parametrize("max_points", [25, 1_000])
def test_order_of_cells_does_not_count(max_points):
    i, j = rng.permutation(60), rng.permutation(40)
    value = wasserstein(X, Y, a=A, b=B, max_points=max_points)
    assert wasserstein(X[i], Y[j], a=A[i], b=B[j], max_points=max_points) == pytest.approx(value, rel=1e-9)
    assert wasserstein(Y, X, a=B, b=A, max_points=max_points) == pytest.approx(value, rel=1e-9)
    assert wasserstein(X, X[i], a=A, b=A[i], max_points=max_points) == pytest.approx(0.0, abs=1e-12)


def test_first_order_is_the_smaller():
    assert wasserstein(X, Y) < wasserstein(X, Y, order=2)


def test_one_stray_cell_is_drawn_by_its_mass():
    # 1 % of the mass 100 away: order 1 sees 1, order 2 sees 10.
    x, stray = np.zeros((2, 1)), np.array([[0.0], [100.0]])
    for order, expected in ((1, 1.0), (2, 10.0)):
        assert wasserstein(x, stray, b=[0.99, 0.01], order=order) == pytest.approx(expected)


def test_random_start():
    values = [wasserstein(X, Y, a=A, b=B, max_points=25, rng=seed) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert wasserstein(X, Y, a=A, b=B, max_points=25, rng=jax.random.key(1)) == values[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 3}, "`order` to be 1 or 2, found 3"),
        ({"order": 1.5}, r"`order` to be 1 or 2, found 1\.5"),
        ({"max_points": 0}, "`max_points` to be a positive integer, found 0"),
        ({"max_points": 10.0}, r"`max_points` to be a positive integer, found 10\.0"),
        ({"max_points": True}, "`max_points` to be a positive integer, found True"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        wasserstein(X, Y, **arguments)
