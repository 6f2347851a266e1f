"""The unbalanced solve against POT, its own invariances, and bad input."""

import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest
from ott.geometry import costs
from scipy.spatial.distance import cdist

import uotcell as uc
from uotcell.ot import _annealing, _coupling, _sinkhorn, _solve
from uotcell.ot._geometry import PointGeometry, resolve_cost


def clouds(n=80, m=60, d=3, seed=0, shift=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 1.3 + shift / np.sqrt(d)


def plan(coupling):
    cost = np.asarray(coupling.cost_fn.all_pairs(coupling.x, coupling.y), np.float64) / coupling.scale
    f, g = np.asarray(coupling.f, np.float64), np.asarray(coupling.g, np.float64)
    prior = np.outer(np.asarray(coupling.a, np.float64), np.asarray(coupling.b, np.float64))
    return prior * np.exp((f[:, None] + g - cost) / coupling.epsilon)


@pytest.mark.parametrize(("tau", "epsilon"), [((0.9, 0.9), 0.05), ((0.99, 0.99), 0.05), ((0.8, 0.97), 0.1)])
def test_agrees_with_pot_in_the_kl_convention(tau, epsilon):
    x, y = clouds()
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.5, 1.5, 80) / 80, rng.uniform(0.5, 1.5, 60) / 30
    coupling = uc.ot.solve_unbalanced(x, y, a=a, b=b, tau=tau, epsilon=epsilon, threshold=1e-5)
    cost = cdist(x, y, "sqeuclidean")
    reg = epsilon * coupling.scale
    penalty = tuple(t / (1 - t) * reg for t in tau)
    expected = pot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, reg, penalty, reg_type="kl", method="sinkhorn", numItermax=100_000, stopThr=1e-13
    )
    np.testing.assert_allclose(coupling.source_weights, expected.sum(1), rtol=2e-3)
    np.testing.assert_allclose(coupling.target_weights, expected.sum(0), rtol=2e-3)
    assert coupling.transported_mass == pytest.approx(expected.sum(), rel=1e-3)
    np.testing.assert_allclose(plan(coupling), expected, atol=2e-3 * expected.max())
    np.testing.assert_allclose(coupling.push(x), expected @ y / expected.sum(1, keepdims=True), atol=5e-3)
    np.testing.assert_allclose(coupling.pull(y), expected.T @ x / expected.sum(0)[:, None], atol=5e-3)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", costs.PNormP(1.5)])
def test_costs_agree_with_pot_when_balanced(cost):
    x, y = clouds(shift=2.0)
    coupling = uc.ot.solve_unbalanced(x, y, cost=cost, epsilon=0.1, threshold=1e-5)
    name = cost if isinstance(cost, str) else lambda u, v: np.sum(np.abs(u - v) ** 1.5) / 1.5
    matrix = cdist(x, y, name)
    assert coupling.scale == pytest.approx(matrix.mean(), rel=1e-4)
    uniform = (np.full(80, 1 / 80), np.full(60, 1 / 60))
    expected = pot.sinkhorn(*uniform, matrix, 0.1 * matrix.mean(), method="sinkhorn_log", stopThr=1e-10)
    np.testing.assert_allclose(plan(coupling), expected, atol=2e-3 * expected.max())
    assert coupling.transported_mass == pytest.approx(1.0, abs=1e-4)


def test_mass_does_not_depend_on_the_number_of_cells():
    masses = []
    for n in (250, 1000, 4000):
        x, y = clouds(n, n, d=50, seed=3, shift=1.5)
        masses.append(uc.ot.solve_unbalanced(x, y, tau=0.98, epsilon=0.2).transported_mass)
    # ott's own convention gives .055 / .074 / .098 at comparable settings.
    assert max(masses) / min(masses) < 1.05
    x, y = clouds(200, 150)
    once = uc.ot.solve_unbalanced(x, y, tau=0.9, threshold=1e-5)
    thrice = uc.ot.solve_unbalanced(np.repeat(x, 3, 0), np.repeat(y, 3, 0), tau=0.9, threshold=1e-5)
    assert thrice.transported_mass == pytest.approx(once.transported_mass, rel=1e-4)


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine"])
def test_tiled_equals_dense(cost):
    x, y = clouds(333, 257, d=10)
    kwargs = {"tau": (0.95, 0.9), "cost": cost, "threshold": 1e-5, "epsilon": 0.05}
    dense = uc.ot.solve_unbalanced(x, y, **kwargs)
    tiled = uc.ot.solve_unbalanced(x, y, tile=50, **kwargs)
    for name in ("source_weights", "target_weights", "f", "g"):
        np.testing.assert_allclose(getattr(tiled, name), getattr(dense, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tiled.push(x), dense.push(x), atol=1e-4)


def test_large_problems_are_tiled_and_never_hold_the_whole_cost(monkeypatch):
    x, y = clouds(600, 500)
    dense = uc.ot.solve_unbalanced(x, y, tau=0.95, threshold=1e-5, epsilon=0.05)
    monkeypatch.setattr(_solve, "DENSE_ENTRIES", 10_000)
    monkeypatch.setattr(_coupling, "TILE_ENTRIES", 5_000)
    tiles = []
    monkeypatch.setattr(_annealing, "sinkhorn", lambda g, **kw: tiles.append(g.tile) or _sinkhorn.sinkhorn(g, **kw))
    tiled = uc.ot.solve_unbalanced(x, y, tau=0.95, threshold=1e-5, epsilon=0.05)
    assert tiles == [10]
    np.testing.assert_allclose(tiled.source_weights, dense.source_weights, rtol=1e-4)
    # What the compiled program may hold at once, for four times as many cells as fit into its memory as a matrix.
    n, ones = 8_192, jnp.full(8_192, 1 / 8_192)
    points = jnp.zeros((n, 10))
    geometry = PointGeometry(points, points, ones, ones, resolve_cost("sqeuclidean"), 1.0, 0.1, tile=64)
    settings = {"penalties": _sinkhorn.Penalties.of((0.9, 0.9)), "threshold": 1e-3, "max_iterations": 10}
    compiled = _sinkhorn.sinkhorn.lower(geometry, **settings).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4 / 4


def test_penalty_and_tau_are_one_knob():
    x, y = clouds()
    epsilon, penalty = 0.02, 0.3
    by_penalty = uc.ot.solve_unbalanced(x, y, epsilon=epsilon, marginal_penalty=penalty)
    by_tau = uc.ot.solve_unbalanced(x, y, epsilon=epsilon, tau=penalty / (penalty + epsilon))
    np.testing.assert_allclose(by_penalty.source_weights, by_tau.source_weights, rtol=1e-5)
    assert by_penalty.tau == pytest.approx(by_tau.tau)
    assert by_penalty.marginal_penalty == pytest.approx((penalty, penalty))
    one_sided = uc.ot.solve_unbalanced(x, y, marginal_penalty=(np.inf, 0.3), epsilon=epsilon)
    np.testing.assert_allclose(np.asarray(one_sided.source_weights) * 80, 1, rtol=1e-3)
    assert np.asarray(one_sided.target_weights).std() > 1e-4


def test_reports_are_consistent():
    x, y = clouds()
    coupling = uc.ot.solve_unbalanced(x, y, tau=0.9)
    source, target = (np.asarray(w, np.float64) for w in (coupling.source_weights, coupling.target_weights))
    assert source.sum() == pytest.approx(target.sum(), rel=1e-5)
    assert coupling.transported_mass == pytest.approx(source.sum())
    assert coupling.effective_sample_size[1] == pytest.approx(uc.metrics.effective_sample_size(target))
    assert coupling.converged
    assert 0 <= coupling.marginal_error <= 1e-3
    assert coupling.n_iters % 10 == 0
    np.testing.assert_allclose(coupling.source_rescaling(x) / 80, source, rtol=1e-3)
    np.testing.assert_allclose(coupling.target_rescaling(y) / 60, target, rtol=5e-3)
    assert uc.ot.solve_unbalanced(x, y).source_rescaling(x) == pytest.approx(np.ones(80))


def test_cells_of_no_mass_are_as_good_as_absent():
    x, y = clouds()
    a = np.where(np.arange(80) < 50, 1 / 50, 0.0)
    with_zeros = uc.ot.solve_unbalanced(x, y, a=a, tau=0.9)
    without = uc.ot.solve_unbalanced(x[:50], y, tau=0.9)
    np.testing.assert_allclose(with_zeros.source_weights[:50], without.source_weights, rtol=2e-3)
    assert np.all(np.asarray(with_zeros.source_weights[50:]) == 0)
    np.testing.assert_allclose(with_zeros.source_rescaling(x[50:]), without.source_rescaling(x[50:]), rtol=5e-3)
    i, _ = with_zeros.sample_marginals(0, 5000)
    assert i.max() < 50


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e8])
def test_translation_and_scale_change_nothing(offset, factor):
    x, y = clouds()
    reference = uc.ot.solve_unbalanced(x, y, tau=0.95)
    moved = uc.ot.solve_unbalanced((x + offset) * factor, (y + offset) * factor, tau=0.95)
    np.testing.assert_allclose(moved.source_weights, reference.source_weights, rtol=5e-3)
    np.testing.assert_allclose(
        moved.push((x + offset) * factor) / factor - offset, reference.push(x), atol=max(1e-2, 1e-6 * offset)
    )


def test_anchors_approximate_the_full_problem():
    x, y = clouds(3000, 2500, d=2)
    full = uc.ot.solve_unbalanced(x, y, tau=0.97, epsilon=0.05)
    anchored = uc.ot.solve_unbalanced(x, y, tau=0.97, epsilon=0.05, anchors=1000, rng=1)
    assert [len(side) for side in anchored.anchors] == [1000, 1000]
    assert anchored.transported_mass == pytest.approx(full.transported_mass, rel=0.03)
    for name in ("source_weights", "target_weights"):
        few, all_ = np.asarray(getattr(anchored, name), float), np.asarray(getattr(full, name), float)
        assert few.sum() == pytest.approx(anchored.transported_mass, rel=1e-4)
        assert np.abs(few - all_).sum() / all_.sum() < 0.06
    assert np.sqrt(((anchored.push(x) - full.push(x)) ** 2).sum(1).mean()) < 0.15
    again = uc.ot.solve_unbalanced(x, y, tau=0.97, epsilon=0.05, anchors=1000, rng=1)
    np.testing.assert_array_equal(again.source_weights, anchored.source_weights)


def test_median_scale_is_not_moved_by_a_few_far_cells():
    x, y = clouds(200, 200)
    far = y.copy()
    far[:5] += 1e3
    with pytest.warns(UserWarning, match="few far cells set the scale"):
        by_mean = uc.ot.solve_unbalanced(x, far, tau=0.95)
    by_median = uc.ot.solve_unbalanced(x, far, tau=0.95, scale_cost="median")
    clean = uc.ot.solve_unbalanced(x, y, tau=0.95, scale_cost="median")
    assert by_mean.scale > 1e3 * clean.scale
    assert by_median.scale == pytest.approx(clean.scale, rel=0.1)
    assert np.asarray(by_median.target_weights[:5]).max() < 1e-6


def test_draws_follow_the_plan():
    x, y = clouds(12, 9)
    coupling = uc.ot.solve_unbalanced(x, y, tau=0.9, epsilon=0.1, threshold=1e-5)
    expected = plan(coupling) / plan(coupling).sum()
    n = 200_000
    i, j = coupling.sample_pairs(0, n)
    found = np.bincount(i * 9 + j, minlength=108).reshape(12, 9) / n
    assert np.abs(found - expected).max() < 5 * np.sqrt(0.25 / n)
    i, j = coupling.sample_marginals(1, n)
    np.testing.assert_allclose(np.bincount(i, minlength=12) / n, expected.sum(1), atol=5e-3)
    np.testing.assert_allclose(np.bincount(j, minlength=9) / n, expected.sum(0), atol=5e-3)
    independent = np.bincount(i * 9 + j, minlength=108).reshape(12, 9) / n
    np.testing.assert_allclose(independent, np.outer(expected.sum(1), expected.sum(0)), atol=5e-3)


@pytest.mark.parametrize("tile", [None, 3])
def test_pools_of_partners_are_rows_of_the_plan(tile, monkeypatch):
    if tile:
        monkeypatch.setattr(_coupling, "default_tile", lambda n, limit: tile)
    x, y = clouds(n=12, m=9)
    b = np.r_[np.full(8, 1 / 8), 0.0]
    coupling = uc.ot.solve_unbalanced(x, y, b=b, tau=0.9, epsilon=0.1)
    rows, columns, size = np.array([1, 4, 5, 11]), np.array([0, 2, 3, 5, 6, 8]), 64
    pool = coupling.sample_partners(0, rows, columns, size)
    assert pool.shape == (4, size)
    assert pool.dtype == np.int32
    expected = plan(coupling)[np.ix_(rows, columns)]
    expected *= size / expected.sum(axis=1, keepdims=True)
    found = np.stack([np.bincount(row, minlength=6) for row in pool])
    # At even steps, a column is drawn as often as its share says, to within one.
    assert np.abs(found - expected).max() < 1.001
    assert found[:, 5].sum() == 0
    np.testing.assert_array_equal(pool, coupling.sample_partners(0, rows, columns, size))
    many = np.stack([coupling.sample_partners(seed, rows, columns, 8) for seed in range(200)])
    shares = np.stack([(many == column).mean(axis=(0, 2)) for column in range(6)], axis=1)
    np.testing.assert_allclose(shares, expected / size, atol=0.02)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tau": 0.0}, r"`tau` to be in \(0, 1\], found 0"),
        ({"tau": 1.2}, r"`tau` to be in \(0, 1\], found 1.2"),
        ({"tau": (0.9, float("nan"))}, r"`tau` to be in \(0, 1\]"),
        ({"tau": 0.9, "marginal_penalty": 1.0}, "found both"),
        ({"marginal_penalty": -1.0}, "`marginal_penalty` to be positive"),
        ({"tau": (0.9, 0.9, 0.9)}, "`tau` to be one number or one per side"),
        ({"tau": "high"}, "`tau` to be one number or one per side"),
        ({"epsilon": "small"}, "`epsilon` to be a positive number, found 'small'"),
        ({"epsilon": 0.0}, "`epsilon` to be a positive number, found 0"),
        ({"threshold": -1.0}, "`threshold` to be a positive number"),
        ({"cost": "manhattan"}, "`cost` to be one of"),
        ({"scale_cost": "max"}, "`scale_cost` to be 'mean', 'median' or a positive number"),
        ({"scale_cost": -2.0}, "`scale_cost` to be a positive number"),
        ({"a": np.ones(3)}, r"`a` to have shape \(80,\)"),
        ({"b": -np.ones(60)}, "`b` to be finite, non-negative"),
        ({"a": np.zeros(80)}, "not all zero"),
        ({"tile": 0}, "`tile` to be a positive integer"),
        ({"tile": True}, "`tile` to be a positive integer"),
        ({"anchors": 0}, "`anchors` to be a positive integer"),
        ({"max_iterations": 0}, "`max_iterations` to be a positive integer"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        uc.ot.solve_unbalanced(*clouds(), **kwargs)


def test_a_balanced_problem_needs_equal_masses():
    x, y = clouds()
    with pytest.raises(ValueError, match="equal sums in a balanced problem, found 2 and 1"):
        uc.ot.solve_unbalanced(x, y, a=np.full(80, 2 / 80))
    assert uc.ot.solve_unbalanced(x, y, a=np.full(80, 2 / 80), tau=(0.9, 1.0)).transported_mass == pytest.approx(
        1.0, rel=1e-3
    )


def test_bad_points():
    x, y = clouds()
    with pytest.raises(ValueError, match="`y` to have 3 dimensions"):
        uc.ot.solve_unbalanced(x, y[:, :2])
    with pytest.raises(ValueError, match="NaN or inf in 1 of 80 rows"):
        uc.ot.solve_unbalanced(np.where(np.arange(80)[:, None] == 7, np.nan, x), y)
    with pytest.raises(ValueError, match="all their cells coincide"):
        uc.ot.solve_unbalanced(np.ones((20, 2)), np.ones((20, 2)))
    with pytest.raises(ValueError, match="float32 does not hold their squares"):
        uc.ot.solve_unbalanced(x * 1e25, y * 1e25)
    with pytest.raises(ValueError, match="dense numeric array"):
        uc.ot.solve_unbalanced(x[:, 0], y)
    coupling = uc.ot.solve_unbalanced(x, y)
    with pytest.raises(ValueError, match="to have 3 dimensions"):
        coupling.push(x[:, :2])


def test_failures_are_loud():
    x, y = clouds()
    with pytest.raises(uc.ConvergenceError, match="from its optimality condition after 10 sweeps"):
        uc.ot.solve_unbalanced(x, y, epsilon=0.001, max_iterations=10)
    # Far apart clouds and a low tau: destroying everything is cheapest, which plain solvers call converged.
    far = y * 0.01 + 100.0
    with pytest.raises(uc.ConvergenceError, match=r"transports .* of a mass of 1"):
        uc.ot.solve_unbalanced(x * 0.01, far, epsilon=0.001, tau=0.9)


def test_extreme_settings_give_answers():
    x, y = clouds()
    near_balanced = uc.ot.solve_unbalanced(x, y, tau=0.9999)
    balanced = uc.ot.solve_unbalanced(x, y)
    np.testing.assert_allclose(near_balanced.push(x), balanced.push(x), atol=0.1)
    assert near_balanced.transported_mass == pytest.approx(1.0, abs=0.02)
    assert uc.ot.solve_unbalanced(x, x, tau=0.05, epsilon=0.05).converged


def test_similar_sizes_and_all_tau_share_one_program_and_padding_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(133, 3)), rng.normal(size=(119, 3)) + 1
    uc.ot.solve_unbalanced(x, y, tau=0.9)
    before = _sinkhorn.sinkhorn._cache_size()
    couplings = [uc.ot.solve_unbalanced(x[:n], y, tau=tau) for n, tau in ((133, 0.9), (132, 0.99), (130, (0.8, 0.95)))]
    assert _sinkhorn.sinkhorn._cache_size() == before
    monkeypatch.setattr(_solve, "PADDED_CELLS", 0)
    unpadded = uc.ot.solve_unbalanced(x, y, tau=0.9)
    for name in ("source_weights", "target_weights", "f", "g"):
        np.testing.assert_allclose(getattr(couplings[0], name), getattr(unpadded, name), rtol=2e-3, atol=1e-6)
    assert couplings[0].transported_mass == pytest.approx(unpadded.transported_mass, rel=1e-3)
