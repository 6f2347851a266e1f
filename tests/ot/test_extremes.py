"""Data and settings at the edge of float32: the right answer, by float64 or a closed form, or the error that says why.

Every row of ``docs/numerics.md`` has its test here, or in the files of the same name of ``metrics`` and ``tl``.
"""

import numpy as np
import ot as pot
import pytest
from scipy.spatial.distance import cdist
from sinkhorn_reference import reference_plan

import uotcell as uc
from uotcell.ot import _annealing
from uotcell.ot._sinkhorn import Penalties, sinkhorn

N, M, EPSILON, TAU = 40, 32, 0.05, 0.95


def clouds(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, 3)), rng.normal(size=(M, 3)) * 1.3 + 0.6


def solve(x, y, **kwargs):
    return uc.ot.solve_unbalanced(x, y, **{"epsilon": EPSILON, "tau": TAU, "threshold": 1e-4, **kwargs})


def both_sides(tau):
    return (tau, tau) if np.isscalar(tau) else tau


def assert_agrees(coupling, x, y, *, a=None, b=None, cost="sqeuclidean", tolerance=1e-3):
    """Marginals within a share of the mass of those of the float64 reference."""
    matrix = cdist(np.asarray(x, float), np.asarray(y, float), cost) / coupling.scale
    expected = reference_plan(matrix, coupling.epsilon, coupling.tau, a, b)
    assert coupling.transported_mass == pytest.approx(expected.sum(), rel=tolerance)
    for found, axis in ((coupling.source_weights, 1), (coupling.target_weights, 0)):
        assert np.abs(np.asarray(found, float) - expected.sum(axis)).sum() < tolerance * expected.sum()


def assert_equal_couplings(found, expected, *, scale=1.0, tolerance=1e-4):
    for name in ("source_weights", "target_weights"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=tolerance)
    x = np.asarray(expected.x) + expected.shift
    np.testing.assert_allclose(found.push(x * scale) / scale, expected.push(x), atol=1e-3)


@pytest.mark.parametrize("tau", [1e-3, 1e-6])
def test_mass_that_costs_nothing_is_kept_where_the_kernel_is(tau):
    x, y = clouds()
    coupling = solve(x, y, tau=tau, epsilon=0.5)
    assert_agrees(coupling, x, y, tolerance=1e-5)
    # Without penalty nothing but the entropy holds the mass: π → a ⊗ b exp(−c/ε).
    kernel = np.exp(-cdist(x, y, "sqeuclidean") / coupling.scale / 0.5) / (N * M)
    np.testing.assert_allclose(coupling.source_weights, kernel.sum(1), rtol=5 * tau + 1e-5)


def test_mass_that_vanishes_is_an_error():
    x, y = clouds()
    with pytest.raises(uc.ConvergenceError, match=r"tau=\(1e-06, 1e-06\) transports .* of a mass of 1: .*Raise `tau`"):
        solve(x, y + 100, tau=1e-6, scale_cost=1.0, epsilon=0.5)


def test_a_small_epsilon_comes_close_to_the_exact_plan_when_balanced():
    x, y = clouds()
    geometries = []
    plain = _annealing.sinkhorn

    def recorded(geometry, **kwargs):
        geometries.append(geometry)
        return plain(geometry, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_annealing, "sinkhorn", recorded)
        coupling = solve(x, y, tau=1.0, epsilon=1e-4, threshold=1e-3)
    assert coupling.n_iters < 5_000
    np.testing.assert_allclose(coupling.source_weights, 1 / N, rtol=1e-5)
    cost = cdist(x, y, "sqeuclidean") / coupling.scale
    f, g = (np.asarray(p, float) for p in (coupling.f, coupling.g))
    plan = np.exp((f[:, None] + g - cost) / 1e-4) / (N * M)
    exact = pot.emd2(np.full(N, 1 / N), np.full(M, 1 / M), cost)
    # 1e-3 of the mass may be out of place, and the plan's blur costs at most ε log n.
    assert (plan * cost).sum() == pytest.approx(exact, abs=1e-3 * cost.max() + 1e-4 * np.log(N))
    # Without the ladder, which keeps most sweeps for the last level, the same problem is far from solved.
    balanced, most = Penalties.of((1.0, 1.0)), 10 * coupling.n_iters
    direct = sinkhorn(geometries[-1], penalties=balanced, threshold=1e-3, max_iterations=most)
    assert float(direct.marginal_error) > 1e-3


@pytest.mark.parametrize("tau", [0.99, (1.0, 0.99)])
def test_a_small_epsilon_agrees_with_float64_when_unbalanced(tau):
    x, y = clouds()
    assert_agrees(solve(x, y, tau=tau, epsilon=1e-4, threshold=1e-3), x, y, tolerance=2e-3)


def test_a_ladder_keeps_the_penalties():
    x, y = clouds()
    coupling = solve(x, y, tau=0.999, epsilon=5e-3)
    assert_agrees(coupling, x, y)
    assert coupling.tau == (0.999, 0.999)
    assert coupling.n_iters % 10 == 0


def test_too_few_sweeps_for_a_small_epsilon_say_so():
    x, y = clouds()
    with pytest.raises(uc.ConvergenceError, match=r"epsilon=0.0001.* after \d+ sweeps.*`max_iterations`"):
        solve(x, y, tau=1.0, epsilon=1e-4, max_iterations=100)


def test_an_epsilon_that_float32_does_not_resolve_is_an_error():
    x, y = clouds()
    with pytest.raises(ValueError, match="whose costs float32 resolves to `epsilon`"):
        solve(x, y, epsilon=1e-8)


def test_duplicated_cells_are_one_cell_with_their_mass():
    x, y = clouds()
    mass = np.r_[4.0, np.ones(N - 4)] / N
    merged = solve(x[: N - 3], y, a=mass)
    copies = np.r_[0, 0, 0, np.arange(N - 3)]
    repeated = solve(x[copies], y)
    weights = np.bincount(copies, np.asarray(repeated.source_weights, float))
    np.testing.assert_allclose(weights, merged.source_weights, rtol=1e-3)
    np.testing.assert_allclose(repeated.target_weights, merged.target_weights, rtol=1e-3)
    assert_agrees(repeated, x[copies], y)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("tile", [None, 7])
def test_one_far_outlier_loses_its_mass_and_leaves_the_others_alone(cost, tile):
    x, y = clouds()
    far = x.copy()
    far[7] += 1e6
    coupling = solve(far, y, cost=cost, scale_cost="median", tile=tile)
    assert_agrees(coupling, far, y, cost=cost)
    assert coupling.source_weights[7] == 0
    mass = np.where(np.arange(N) == 7, 0.0, 1 / N)
    without = solve(x, y, a=mass, cost=cost, scale_cost=coupling.scale)
    np.testing.assert_allclose(coupling.source_weights, without.source_weights, rtol=1e-3)
    others = np.arange(N) != 7
    np.testing.assert_allclose(coupling.push(far)[others], without.push(x)[others], atol=1e-2)


def test_a_mean_cost_that_one_cell_decides_names_the_cell():
    x, y = clouds()
    far = y.copy()
    far[3] -= 1e6
    with pytest.warns(UserWarning, match=r"more than five times the median.* The farthest is row 3 of `y`"):
        coupling = solve(x, far)
    assert_agrees(coupling, x, far)


def test_a_mean_cost_of_five_times_the_median_is_the_most_that_passes():
    """One cloud at zero, the other at one but for a cell: the median cost is one, the mean what this cell makes it."""
    x = np.zeros((100, 1))
    y = np.ones((100, 1))
    y[0] = np.sqrt(1 + 100 * 3.9)  # a mean cost of 4.9, where the median is 1
    solve(x, y, tau=0.9)
    y[0] = np.sqrt(1 + 100 * 4.1)
    with pytest.warns(UserWarning, match="more than five times the median"):
        solve(x, y, tau=0.9)


@pytest.mark.parametrize(
    ("tau", "sides", "row"),
    [(1.0, "x", "1 of `x`.*row 7"), ((0.95, 1.0), "y", "1 of `y`.*row 3"), (0.95, "xy", "1 of `x`.*row 7")],
)
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_an_outlier_whose_costs_are_noise_is_refused_by_name(tau, sides, row, cost):
    x, y = clouds()
    x[7] += 1e6 * ("x" in sides)
    y[3] += 1e6 * ("y" in sides)
    with pytest.raises(ValueError, match=f"float32 resolves to `epsilon`, found {row}.*Remove them"):
        solve(x, y, tau=tau, scale_cost="median", cost=cost)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean"])
def test_a_constant_feature_changes_nothing(cost):
    x, y = clouds()
    more = [np.concatenate([side, np.full((len(side), 1), 1e6)], axis=1) for side in (x, y)]
    plain, constant = solve(x, y, cost=cost), solve(*more, cost=cost)
    np.testing.assert_allclose(constant.source_weights, plain.source_weights, rtol=1e-5)
    np.testing.assert_array_equal(constant.push(more[0])[:, 3], np.float32(1e6))


@pytest.mark.parametrize("factor", [1e-14, 1e-6, 1e8, 1e14])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_units_change_nothing(cost, factor):
    x, y = clouds()
    assert_equal_couplings(solve(x * factor, y * factor, cost=cost), solve(x, y, cost=cost), scale=factor)


@pytest.mark.parametrize("how", [{"tile": 7}, {"anchors": 20}, {"scale_cost": "median"}])
@pytest.mark.parametrize("factor", [1e-6, 1e8])
def test_units_change_nothing_however_the_problem_is_solved(how, factor):
    x, y = clouds()
    for cost in ("sqeuclidean", "cosine"):
        settings = {"cost": cost, **how}
        assert_equal_couplings(solve(x * factor, y * factor, **settings), solve(x, y, **settings), scale=factor)


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_units_whose_squares_leave_float32_are_refused(cost, factor):
    x, y = clouds()
    with pytest.raises(ValueError, match=r"differ by 1e-15 to 1e\+15.*Divide all cells by one number"):
        solve(x * factor, y * factor, cost=cost)


def test_a_missing_cluster_loses_weight_as_the_theory_says():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(N // 2, 3)), rng.normal(size=(N // 2, 3)) + np.array([6, 0, 0])])
    y = rng.normal(size=(M, 3)) + 0.5
    shares = []
    for tau in (0.95, 0.99, 1.0):
        coupling = solve(x, y, tau=tau)
        assert_agrees(coupling, x, y)
        weights = np.asarray(coupling.source_weights, float)
        shares.append(weights[N // 2 :].sum() / weights.sum())
    assert shares[0] < 0.35
    assert shares[0] < shares[1] < shares[2]
    # Balanced keeps every cell, so the half that has no counterpart is moved all the same.
    assert shares[2] == pytest.approx(0.5, abs=1e-4)


def test_cells_of_no_mass_still_have_a_potential_and_an_image():
    x, y = clouds()
    a = np.where(np.arange(N) < 8, 0.0, 1 / (N - 8))
    coupling, without = solve(x, y, a=a), solve(x[8:], y)
    np.testing.assert_allclose(coupling.source_weights, np.r_[np.zeros(8), without.source_weights], rtol=1e-4)
    np.testing.assert_allclose(coupling.f, TAU * without.soft_minimum(x, source=True), atol=1e-3)
    np.testing.assert_allclose(coupling.push(x), without.push(x), atol=1e-3)


@pytest.mark.parametrize(("a_mass", "b_mass"), [(1.0, 100.0), (100.0, 1.0)])
def test_masses_that_differ_a_hundredfold(a_mass, b_mass):
    x, y = clouds()
    a, b = np.full(N, a_mass / N), np.full(M, b_mass / M)
    coupling = solve(x, y, a=a, b=b)
    assert_agrees(coupling, x, y, a=a, b=b)
    # Of s·a the optimal plan is the one of a times s to the power (ε + λ₁)/(ε + λ₁ + λ₂).
    penalty = coupling.marginal_penalty[0]
    power = (EPSILON + penalty) / (EPSILON + 2 * penalty)
    assert coupling.transported_mass == pytest.approx(solve(x, y).transported_mass * 100**power, rel=1e-3)
    one_sided = solve(x, y, a=a, b=b, tau=(1.0, 0.95))
    assert one_sided.transported_mass == pytest.approx(a_mass, rel=1e-5)
    with pytest.raises(ValueError, match=r"equal sums in a balanced problem.*`tau` below 1"):
        solve(x, y, a=a, b=b, tau=1.0)


@pytest.mark.parametrize("mass", [1e-40, 1e40])
def test_masses_that_float32_does_not_hold_are_refused(mass):
    x, y = clouds()
    for solver in (uc.ot.solve_unbalanced, uc.ot.solve_quadratic):
        with pytest.raises(ValueError, match=r"masses `a` of zero or at least 1e-30.*next to nothing"):
            solver(x, y, a=np.r_[mass, np.ones(N - 1)], tau=TAU)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float16, np.longdouble])
def test_any_number_type_will_do(dtype):
    x, y = (np.round(np.abs(side) * 5).astype(dtype) for side in clouds())
    as_double = solve(x.astype(float), y.astype(float))
    coupling = solve(x, y)
    np.testing.assert_array_equal(coupling.source_weights, as_double.source_weights)
    assert coupling.push(x).dtype == np.float32
    np.testing.assert_allclose(coupling.push(x), as_double.push(x.astype(float)), atol=1e-5)


def test_half_precision_far_from_the_origin_does_not_overflow():
    x, y = ((side * 1e3 + 5e4).astype(np.float16) for side in clouds())
    np.testing.assert_array_equal(solve(x, y).source_weights, solve(x.astype(float), y.astype(float)).source_weights)


def test_any_memory_layout_will_do():
    x, y = clouds()
    plain = solve(x, y)
    strided = np.repeat(np.repeat(y, 2, axis=0), 3, axis=1)[::2, ::3]
    assert not strided.flags.c_contiguous
    np.testing.assert_array_equal(solve(np.asfortranarray(x), strided).source_weights, plain.source_weights)
    np.testing.assert_array_equal(plain.push(np.asfortranarray(x)), plain.push(x))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1_000)])
def test_few_cells_against_one_or_many(n, m):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 1
    coupling = solve(x, y)
    assert_agrees(coupling, x, y)
    if (n, m) == (1, 1):
        # f = g = −λ log m and ε log m = f + g − c, where c is the scale.
        expected = np.exp(-1 / (EPSILON + 2 * coupling.marginal_penalty[0]))
        assert coupling.transported_mass == pytest.approx(expected, rel=1e-5)


def test_cells_that_coincide_or_are_none_are_refused():
    x, y = clouds()
    for solver in (uc.ot.solve_unbalanced, uc.ot.solve_quadratic):
        with pytest.raises(ValueError, match=r"`x` to hold at least one cell and one dimension, found shape \(0, 3\)"):
            solver(x[:0], y)
        with pytest.raises(ValueError, match=r"`x` to hold at least one cell and one dimension, found shape \(40, 0\)"):
            solver(x[:, :0], y)
    with pytest.raises(ValueError, match=r"positive mean cost .*all their cells coincide"):
        solve(np.full((5, 2), 1000.1), np.full((4, 2), 1000.1))
    with pytest.raises(ValueError, match=r"positive median cost .*half of all pairs of their cells coincide"):
        solve(np.r_[np.zeros((9, 2)), np.ones((1, 2))], np.zeros((8, 2)), scale_cost="median")
    with pytest.raises(ValueError, match=r"positive mean cost between the cells of `x`.*all coincide"):
        uc.ot.solve_quadratic(x[:1], y)


def spaces():
    rng = np.random.default_rng(0)
    x, y = rng.gamma(1.0, size=(N, 3)) * [3, 2, 1], rng.gamma(1.0, size=(M, 2)) * [3, 2]
    return x, y


def solve_quadratic(x, y, **kwargs):
    return uc.ot.solve_quadratic(x, y, **{"epsilon": EPSILON, "tau": TAU, "n_starts": 1, **kwargs})


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine"])
def test_units_of_either_space_change_nothing(cost):
    x, y = spaces()
    plain = solve_quadratic(x, y, cost=cost)
    for factor_x, factor_y in ((1e-6, 1.0), (1.0, 1e8), (1e-14, 1e14)):
        found = solve_quadratic(x * factor_x, y * factor_y, cost=cost)
        assert found.transported_mass == pytest.approx(plain.transported_mass, rel=1e-4)
        np.testing.assert_allclose(found.source_weights, plain.source_weights, rtol=2e-3)
        np.testing.assert_allclose(found.push(x * factor_x) / factor_y, plain.push(x), atol=0.03)
    with pytest.raises(ValueError, match=r"differ by 1e-15 to 1e\+15"):
        solve_quadratic(x * 1e30, y, cost=cost)


def test_quadratic_copies_masses_and_cells_without_mass():
    x, y = spaces()
    plain = solve_quadratic(x, y)
    constant = solve_quadratic(np.concatenate([x, np.full((N, 1), 1e6)], axis=1), y)
    assert constant.transported_mass == pytest.approx(plain.transported_mass, rel=1e-3)
    np.testing.assert_allclose(constant.source_weights, plain.source_weights, rtol=5e-3)
    half = N // 2
    copied = solve_quadratic(np.concatenate([x[:half], x[:half]]), y)
    merged = solve_quadratic(x, y, a=np.r_[np.full(half, 2 / N), np.zeros(half)])
    weights = np.asarray(copied.source_weights).reshape(2, half).sum(axis=0)
    np.testing.assert_allclose(weights, merged.source_weights[:half], rtol=2e-3)
    assert np.all(np.asarray(merged.source_weights)[half:] == 0)
    assert np.isfinite(merged.push(x)).all()
    heavy = solve_quadratic(x, y, a=np.full(N, 100 / N))
    penalty = plain.marginal_penalty[0]
    power = (EPSILON + penalty) / (EPSILON + 2 * penalty)
    assert heavy.transported_mass == pytest.approx(plain.transported_mass * 100**power, rel=2e-3)
    with pytest.raises(ValueError, match="equal sums in a balanced problem"):
        solve_quadratic(x, y, a=np.full(N, 100 / N), tau=1.0)


def test_a_quadratic_problem_that_one_cell_decides_names_the_cell():
    x, y = spaces()
    x[7] += 1e6
    with pytest.warns(UserWarning, match=r"The farthest is row 7 of `x`. Remove these cells\."):
        coupling = solve_quadratic(x, y)
    assert coupling.source_weights[7] < 0.05 * np.median(coupling.source_weights)


def test_a_quadratic_problem_that_does_not_settle_says_so():
    x, y = spaces()
    with pytest.raises(uc.ConvergenceError, match=r"quadratic problem still changed|from its optimality"):
        solve_quadratic(x, y, tau=1.0, epsilon=1e-4, max_iterations=5)
