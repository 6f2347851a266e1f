"""Path lengths against scipy and scikit-learn, couplings along them against POT, and cells outside the graph."""

import numpy as np
import ot as pot
import pytest
from scipy.sparse.csgraph import shortest_path
from sklearn.datasets import make_swiss_roll
from sklearn.neighbors import kneighbors_graph

import uotcell as uc
from uotcell.ot import _structured
from uotcell.ot._geodesic import GeodesicCost


def roll(n=220, m=180, seed=0):
    points, position = make_swiss_roll(n + m, random_state=seed)
    return points[:n], points[n:], position


def plan(coupling):
    n = len(coupling.x)
    cost = np.asarray(coupling.cost.seen_rows(np.arange(n)), np.float64) / coupling.scale
    f, g = np.asarray(coupling.f, np.float64), np.asarray(coupling.g, np.float64)
    prior = np.outer(np.asarray(coupling.a, np.float64), np.asarray(coupling.b, np.float64))
    return prior * np.exp((f[:, None] + g - cost) / coupling.epsilon)


def test_lengths_are_those_of_shortest_paths():
    x, y, _ = roll()
    graph = kneighbors_graph(np.concatenate([x, y]), 10, mode="distance")
    expected = shortest_path(graph.maximum(graph.T), directed=False)[: len(x), len(x) :]
    cost = GeodesicCost(x, y, uc.ot.Geodesic(n_neighbors=10, power=1.0))
    np.testing.assert_allclose(cost.seen_rows(np.arange(len(x))), expected, rtol=1e-5)
    # Asked as cells like any others, seen cells have the costs of their own paths.
    np.testing.assert_allclose(cost.rows(x), expected, rtol=1e-5)
    np.testing.assert_allclose(cost.columns(y), expected.T, rtol=1e-5)
    np.testing.assert_allclose(cost.rows(x, np.array([5, 2])), expected[:, [5, 2]], rtol=1e-5)
    squared = GeodesicCost(x, y, uc.ot.Geodesic(n_neighbors=10))
    np.testing.assert_allclose(squared.columns(y, np.arange(3)), expected.T[:, :3] ** 2, rtol=1e-5)


def test_lengths_on_a_circle_are_arcs():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cost = GeodesicCost(circle[::2], circle[1::2], uc.ot.Geodesic(n_neighbors=2, power=1.0))
    arc = np.abs(angle[::2, None] - angle[1::2])
    np.testing.assert_allclose(cost.seen_rows(np.arange(200)), np.minimum(arc, 2 * np.pi - arc), rtol=1e-3)
    between = np.stack([np.cos(angle + 0.004), np.sin(angle + 0.004)], axis=1)[::2]
    arc = np.abs(angle[::2, None] + 0.004 - angle[1::2])
    assert np.abs(cost.rows(between) - np.minimum(arc, 2 * np.pi - arc)).max() < 0.02


@pytest.mark.parametrize(("tau", "epsilon"), [((0.9, 0.97), 0.05), ((1.0, 1.0), 0.1)])
def test_couplings_agree_with_pot(tau, epsilon):
    x, y, _ = roll(80, 60)
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.5, 1.5, 80), rng.uniform(0.5, 1.5, 60)
    a, b = a / a.sum(), b / b.sum()
    if tau[0] < 1:
        b = 2 * b
    cost = uc.ot.Geodesic(n_neighbors=8)
    coupling = uc.ot.solve_unbalanced(x, y, a=a, b=b, tau=tau, epsilon=epsilon, cost=cost, threshold=1e-5)
    matrix = np.asarray(GeodesicCost(x, y, cost).rows(x), np.float64)
    assert coupling.scale == pytest.approx(a @ matrix @ b / (a.sum() * b.sum()), rel=1e-5)
    reg = epsilon * coupling.scale
    if tau[0] < 1:
        penalty = tuple(t / (1 - t) * reg for t in tau)
        expected = pot.unbalanced.sinkhorn_unbalanced(
            a, b, matrix, reg, penalty, reg_type="kl", method="sinkhorn", numItermax=100_000, stopThr=1e-13
        )
    else:
        expected = pot.sinkhorn(a, b, matrix, reg, method="sinkhorn_log", stopThr=1e-10)
    np.testing.assert_allclose(coupling.source_weights, expected.sum(1), rtol=2e-3)
    np.testing.assert_allclose(coupling.target_weights, expected.sum(0), rtol=2e-3)
    assert coupling.transported_mass == pytest.approx(expected.sum(), rel=1e-3)
    np.testing.assert_allclose(plan(coupling), expected, atol=2e-3 * expected.max())
    np.testing.assert_allclose(coupling.push(x), expected @ y / expected.sum(1, keepdims=True), atol=2e-2)
    np.testing.assert_allclose(coupling.pull(y), expected.T @ x / expected.sum(0)[:, None], atol=2e-2)
    few = np.array([3, 7, 20, 41])
    restricted = expected[:, few]
    images = restricted @ y[few] / restricted.sum(1, keepdims=True)
    np.testing.assert_allclose(coupling.push(x, columns=few), images, atol=2e-2)


def test_potentials_give_seen_cells_their_own_weights():
    x, y, _ = roll(150, 130)
    coupling = uc.ot.solve_unbalanced(x, y, tau=0.9, cost="geodesic", epsilon=0.05, threshold=1e-5)
    assert isinstance(coupling, uc.ot.StructuredCoupling)
    assert coupling.anchors is None
    np.testing.assert_allclose(coupling.source_rescaling(x) / 150, coupling.source_weights, rtol=1e-3)
    np.testing.assert_allclose(coupling.target_rescaling(y) / 130, coupling.target_weights, rtol=1e-3)
    near = coupling.source_rescaling(x + 1e-3)
    np.testing.assert_allclose(near / 150, coupling.source_weights, rtol=2e-2)
    a = np.where(np.arange(150) < 100, 0.01, 0.0)
    with_zeros = uc.ot.solve_unbalanced(x, y, a=a, tau=0.9, cost="geodesic", epsilon=0.05)
    assert np.all(np.asarray(with_zeros.source_weights[100:]) == 0)
    rest = with_zeros.source_rescaling(x[100:])
    assert np.isfinite(rest).all()
    assert (rest > 0).all()


def test_two_arms_are_far_apart_along_the_data():
    # The arms of a U are close at their tips and joined at the bottom: the right arm's tip is next to the left one's.
    def arms(offset):
        s = np.arange(100) * 0.05 + offset
        left = np.stack([0 * s, s], axis=1)
        right = np.stack([0 * s + 1.2, s], axis=1)
        bottom = np.stack([np.linspace(0, 1.2, 25) + offset / 2, np.zeros(25) - 0.05], axis=1)
        return left, right, bottom

    left, _, bottom = arms(0.0)
    other_left, other_right, other_bottom = arms(0.02)
    x = np.concatenate([left, bottom])
    # Half of the tip of the left arm has left no descendants; the right arm has all cells.
    y = np.concatenate([other_left[:60], other_right, other_bottom])
    settings = {"tau": 0.9, "epsilon": 0.02}
    straight = uc.ot.solve_unbalanced(x, y, **settings)
    along = uc.ot.solve_unbalanced(x, y, cost=uc.ot.Geodesic(n_neighbors=5), **settings)
    tips = left[80:]
    assert straight.push(tips)[:, 0].mean() > 0.9
    assert along.push(tips)[:, 0].mean() < 0.1
    assert along.source_rescaling(tips).mean() < straight.source_rescaling(tips).mean()


def test_draws_follow_the_plan(monkeypatch):
    x, y, _ = roll(12, 9)
    coupling = uc.ot.solve_unbalanced(x, y, tau=0.9, epsilon=0.1, cost=uc.ot.Geodesic(6), threshold=1e-5)
    expected = plan(coupling) / plan(coupling).sum()
    n = 100_000
    i, j = coupling.sample_pairs(0, n)
    found = np.bincount(i * 9 + j, minlength=108).reshape(12, 9) / n
    assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / n)
    i, j = coupling.sample_marginals(1, n)
    np.testing.assert_allclose(np.bincount(j, minlength=9) / n, expected.sum(0), atol=5e-3)
    rows, columns, size = np.array([1, 4, 5, 11]), np.array([0, 2, 3, 5, 6, 8]), 64
    share = expected[np.ix_(rows, columns)]
    share *= size / share.sum(axis=1, keepdims=True)
    pool = coupling.sample_partners(0, rows, columns, size)
    assert pool.shape == (4, size)
    assert pool.dtype == np.int32
    assert np.abs(np.stack([np.bincount(row, minlength=6) for row in pool]) - share).max() < 1.001
    monkeypatch.setattr(_structured, "default_tile", lambda n, limit: 3)
    np.testing.assert_array_equal(coupling.sample_partners(0, rows, columns, size), pool)
    monkeypatch.setattr(_structured, "default_tile", lambda n, limit: 64)
    draws = coupling.sample_pairs(0, 500)
    monkeypatch.setattr(_structured, "default_tile", lambda n, limit: 512)
    np.testing.assert_array_equal(coupling.sample_pairs(0, 500), draws)


def test_blocks_change_nothing(monkeypatch):
    x, y, _ = roll(100, 70)
    coupling = uc.ot.solve_unbalanced(x, y, tau=0.9, epsilon=0.1, cost="geodesic")
    whole = coupling.push(x), coupling.pull(y), coupling.source_rescaling(x)
    monkeypatch.setattr(_structured, "default_tile", lambda n, limit: 17)
    for once, again in zip(whole, (coupling.push(x), coupling.pull(y), coupling.source_rescaling(x)), strict=True):
        np.testing.assert_allclose(again, once, rtol=1e-4, atol=1e-5)


def test_scale_is_the_mean_the_median_or_a_number():
    x, y, _ = roll(90, 80)
    matrix = GeodesicCost(x, y, uc.ot.Geodesic()).rows(x)
    for scale_cost, expected in (("mean", matrix.mean()), ("median", np.median(matrix)), (7.0, 7.0)):
        coupling = uc.ot.solve_unbalanced(x, y, tau=0.95, epsilon=0.5, cost="geodesic", scale_cost=scale_cost)
        assert coupling.scale == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("side", ["x", "y"])
def test_a_mean_length_that_one_cell_decides_names_the_cell(side):
    x, y, _ = roll(40, 30)
    {"x": x, "y": y}[side][3] += 1e3
    with pytest.warns(UserWarning, match=f"five times the median.* The farthest is row 3 of `{side}`"):
        uc.ot.solve_unbalanced(x, y, tau=0.9, epsilon=0.1, cost="geodesic")


def test_a_graph_in_parts_says_so():
    x, y, _ = roll(40, 40)
    with pytest.raises(ValueError, match=r"connect all 160 cells, found 2 components, .* Raise `n_neighbors`"):
        uc.ot.solve_unbalanced(np.r_[x, x + 1e3], np.r_[y, y + 1e3], cost="geodesic")
    # Cells at one place are joined by edges of length zero.
    doubled = uc.ot.solve_unbalanced(np.r_[x, x], y, cost="geodesic", tau=0.9, epsilon=0.1)
    np.testing.assert_allclose(doubled.source_weights[:40], doubled.source_weights[40:], rtol=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"anchors": 20}, "`anchors` to be None with a geodesic"), ({"tile": 20}, "`tile` to be None with a geodesic")],
)
def test_what_a_table_cannot_do_is_refused(kwargs, message):
    x, y, _ = roll(40, 40)
    with pytest.raises(ValueError, match=message):
        uc.ot.solve_unbalanced(x, y, cost="geodesic", **kwargs)


def test_too_many_cells_are_refused():
    x, y, _ = roll(40, 40)
    message = r"path lengths between 40 and 40 cells.* fit into 20 KB \(`memory_limit`\).* need 51.2 KB\. Subsample"
    with pytest.raises(MemoryError, match=message):
        uc.ot.solve_unbalanced(x, y, cost="geodesic", memory_limit="20KB")
    # What the message asks for is enough.
    assert uc.ot.solve_unbalanced(x, y, cost="geodesic", memory_limit="51.2KB").memory_limit == 51_200


@pytest.mark.parametrize("kwargs", [{"n_neighbors": 0}, {"n_neighbors": 2.5}, {"power": 0}, {"power": float("nan")}])
def test_bad_parameters(kwargs):
    with pytest.raises(ValueError, match=r"Expected `(n_neighbors|power)` to be a positive"):
        uc.ot.Geodesic(**kwargs)
