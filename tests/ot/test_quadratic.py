"""Quadratic and fused couplings against their objective written out, POT, the linear problem, and known matchings."""

import jax
import numpy as np
import ot as pot
import pytest
from scipy.spatial.distance import cdist

import uotcell as uc
from uotcell.ot import _quadratic
from uotcell.ot._quadratic_batch import QuadraticReference, quadratic_batch


def spaces(n=40, m=30, seed=0):
    """Skewed clouds, of which no reflection looks the same, in three and in five dimensions; two shared features."""
    rng = np.random.default_rng(seed)
    both = rng.gamma(1.0, size=(n + m, 3)) * [3, 2, 1]
    x, y = both[:n], np.concatenate([both[n:], np.zeros((m, 2))], axis=1)
    y = y @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 4
    noise = rng.normal(size=(n + m, 2)) * 0.5
    return x, y, both[:n, :2] + noise[:n], both[n:, :2] + noise[n:]


def masses(n=40, m=30, seed=1):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, m)
    return a / a.sum(), b / b.sum()


def plan(coupling):
    cost = np.asarray(coupling.cost.seen_rows(np.arange(len(coupling.x))), np.float64)
    f, g = np.asarray(coupling.f, np.float64), np.asarray(coupling.g, np.float64)
    prior = np.outer(np.asarray(coupling.a, np.float64), np.asarray(coupling.b, np.float64))
    return prior * np.exp((f[:, None] + g - cost) / coupling.epsilon)


def parts(x, y, a, b, metric="sqeuclidean"):
    """Within-space distances of mean one and the mean of their squared differences."""
    dx, dy = cdist(x, x, metric), cdist(y, y, metric)
    a, b = a / a.sum(), b / b.sum()
    dx, dy = dx / (a @ dx @ a), dy / (b @ dy @ b)
    return dx, dy, a @ dx**2 @ a + b @ dy**2 @ b - 2


def linear_part(x_shared, y_shared, a, b):
    c = cdist(x_shared, y_shared, "sqeuclidean")
    return c / (a @ c @ b / (a.sum() * b.sum()))


def foscttm(images, partners):
    distance = cdist(images, partners)
    own = np.diag(distance)
    return ((distance < own[:, None]).mean() + (distance < own).mean()) / 2


def test_the_plan_is_a_stationary_point_of_the_objective_as_written():
    n, m, w, epsilon, tau = 14, 11, 0.4, 0.1, (0.8, 0.9)
    x, y, x_shared, y_shared = spaces(n, m)
    a, b = masses(n, m)
    a, b = 1.3 * a, 0.8 * b
    coupling = uc.ot.solve_quadratic(
        x,
        y,
        x_shared=x_shared,
        y_shared=y_shared,
        fused_weight=w,
        a=a,
        b=b,
        tau=tau,
        epsilon=epsilon,
        threshold=1e-5,
        n_starts=1,
    )
    dx, dy, spread = parts(x, y, a, b)
    c = linear_part(x_shared, y_shared, a, b)
    loss = (1 - w) / spread * (dx[:, None, :, None] - dy[None, :, None, :]) ** 2 + w * (c[:, :, None, None] + c)
    penalties = coupling.marginal_penalty

    def divergence(p, q):
        """KL of p⊗p from q⊗q."""
        pp, qq = np.outer(p, p), np.outer(q, q)
        return np.sum(pp * np.log(pp / qq) - pp + qq)

    def objective(pi):
        value = np.einsum("ijkl,ij,kl->", loss, pi, pi) + epsilon * divergence(pi.ravel(), np.outer(a, b).ravel())
        value += penalties[0] * divergence(pi.sum(1), a)
        return value + penalties[1] * divergence(pi.sum(0), b)

    found = plan(coupling)
    assert coupling.n_iters >= coupling.n_outer >= 1  # sweeps of all linear problems
    np.testing.assert_allclose(found.sum(1), coupling.source_weights, rtol=1e-3)
    lowest, rng = objective(found), np.random.default_rng(2)
    directions = [np.ones((n, m)), *rng.normal(size=(20, n, m))]
    directions += [np.outer(rng.normal(size=n), np.ones(m)), np.outer(np.ones(n), rng.normal(size=m))]
    for direction in directions:
        slope = (objective(found * np.exp(1e-3 * direction)) - objective(found * np.exp(-1e-3 * direction))) / 2e-3
        assert abs(slope) < 1e-3 * abs(lowest)


@pytest.mark.parametrize("tau", [(0.9, 0.9), (0.8, 0.95)])
def test_agrees_with_pot_when_unbalanced(tau):
    x, y, *_ = spaces()
    a, b = masses()
    epsilon = 0.05
    coupling = uc.ot.solve_quadratic(x, y, a=a, b=b, tau=tau, epsilon=epsilon, threshold=1e-5, n_starts=3)
    dx, dy, spread = parts(x, y, a, b)
    penalty = tuple(spread * side for side in coupling.marginal_penalty)
    start = plan(coupling)
    settings = {"reg_marginals": penalty, "epsilon": epsilon * spread, "unbalanced_solver": "sinkhorn", "tol": 1e-9}
    # From the product plan POT may end in another local solution: here it has to stay in ours.
    expected, *_ = pot.gromov.fused_unbalanced_gromov_wasserstein(
        dx, dy, a, b, init_pi=start * 1.5, max_iter=300, max_iter_ot=5_000, tol_ot=1e-10, **settings
    )
    assert coupling.transported_mass == pytest.approx(expected.sum(), rel=2e-3)
    np.testing.assert_allclose(coupling.source_weights, expected.sum(1), rtol=5e-3, atol=1e-6)
    np.testing.assert_allclose(coupling.target_weights, expected.sum(0), rtol=5e-3, atol=1e-6)
    np.testing.assert_allclose(start, expected, atol=5e-3 * expected.max())


def test_balanced_agrees_with_pot():
    x, y, x_shared, y_shared = spaces()
    a, b = masses()
    epsilon, w = 0.05, 0.3
    dx, dy, spread = parts(x, y, a, b)
    c = linear_part(x_shared, y_shared, a, b)
    settings = {"loss_fun": "square_loss", "max_iter": 500, "tol": 1e-9}
    coupling = uc.ot.solve_quadratic(x, y, a=a, b=b, epsilon=epsilon, threshold=1e-5, n_starts=3)
    # POT's gradient is twice the linearised cost.
    expected = pot.gromov.entropic_gromov_wasserstein(
        dx, dy, a, b, epsilon=2 * epsilon * spread, G0=plan(coupling), **settings
    )
    np.testing.assert_allclose(plan(coupling), expected, atol=5e-3 * expected.max())
    assert coupling.transported_mass == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(coupling.source_rescaling(x), 1)

    fused = uc.ot.solve_quadratic(
        x,
        y,
        x_shared=x_shared,
        y_shared=y_shared,
        fused_weight=w,
        a=a,
        b=b,
        epsilon=epsilon,
        threshold=1e-5,
        n_starts=1,
    )
    unit = 1 / ((1 - w) / spread + 2 * w)
    expected = pot.gromov.entropic_fused_gromov_wasserstein(
        c, dx, dy, a, b, epsilon=2 * epsilon * unit, alpha=(1 - w) / spread * unit, G0=plan(fused), **settings
    )
    np.testing.assert_allclose(plan(fused), expected, atol=5e-3 * expected.max())
    assert fused.objective < coupling.objective * 2


@pytest.mark.parametrize("tau", [(0.9, 0.95), (1.0, 0.9), (1.0, 1.0)])
def test_weight_one_is_the_linear_problem(tau):
    x, y, x_shared, y_shared = spaces()
    a, b = masses()
    settings = {"a": a, "b": b, "tau": tau, "epsilon": 0.05, "threshold": 1e-5}
    linear = uc.ot.solve_unbalanced(x_shared, y_shared, **settings)
    fused = uc.ot.solve_quadratic(x, y, x_shared=x_shared, y_shared=y_shared, fused_weight=1, n_starts=1, **settings)
    assert fused.transported_mass == pytest.approx(linear.transported_mass, rel=1e-3)
    np.testing.assert_allclose(fused.source_weights, linear.source_weights, rtol=2e-3)
    np.testing.assert_allclose(fused.target_weights, linear.target_weights, rtol=2e-3)
    images = fused.push(np.concatenate([x, x_shared], axis=1))
    assert images.shape == (40, 7)
    assert fused.n_shared == 2
    np.testing.assert_allclose(images[:, 5:], linear.push(x_shared), atol=1e-2)


def test_weight_zero_leaves_shared_features_out():
    x, y, x_shared, y_shared = spaces()
    alone = uc.ot.solve_quadratic(x, y, tau=0.9, epsilon=0.1, n_starts=1)
    shared = {"x_shared": x_shared, "y_shared": y_shared, "fused_weight": 0}
    fused = uc.ot.solve_quadratic(x, y, **shared, tau=0.9, epsilon=0.1, n_starts=1)
    np.testing.assert_allclose(fused.source_weights, alone.source_weights, rtol=1e-4)


def test_one_balanced_side_sets_the_mass():
    x, y, *_ = spaces()
    a, b = masses()
    coupling = uc.ot.solve_quadratic(x, y, a=2 * a, b=b, tau=(1, 0.9), epsilon=0.05, n_starts=1)
    np.testing.assert_allclose(coupling.source_weights, 2 * a, rtol=2e-3)
    assert coupling.transported_mass == pytest.approx(2, rel=1e-3)
    assert np.std(coupling.target_weights / b) > 1e-2
    with pytest.raises(ValueError, match="equal sums in a balanced problem"):
        uc.ot.solve_quadratic(x, y, a=2 * a, b=b)


def test_penalty_and_tau_are_one_knob():
    x, y, *_ = spaces()
    by_tau = uc.ot.solve_quadratic(x, y, tau=0.9, epsilon=0.05, n_starts=1)
    by_penalty = uc.ot.solve_quadratic(x, y, marginal_penalty=0.45, epsilon=0.05, n_starts=1)
    np.testing.assert_allclose(by_penalty.source_weights, by_tau.source_weights, rtol=1e-4)


def test_units_and_places_do_not_matter():
    x, y, x_shared, y_shared = spaces()
    settings = {"tau": 0.9, "epsilon": 0.05, "n_starts": 3, "threshold": 1e-4}
    one = uc.ot.solve_quadratic(x, y, x_shared=x_shared, y_shared=y_shared, **settings)
    other = uc.ot.solve_quadratic(
        1e3 * x + 7, 1e-3 * y, x_shared=10 * x_shared + 50, y_shared=10 * y_shared + 50, **settings
    )
    np.testing.assert_allclose(other.source_weights, one.source_weights, rtol=1e-2)
    assert other.objective == pytest.approx(one.objective, rel=1e-3)
    # Moved against each other, shared features disagree.
    apart = uc.ot.solve_quadratic(x, y, x_shared=x_shared, y_shared=y_shared + 2, **settings)
    assert abs(apart.objective - one.objective) > 1e-2


def test_real_cells_find_themselves_in_rotated_coordinates():
    cells = np.asarray(uc.datasets.hematopoiesis().obsm["X_pca"], np.float64)[::4][:180]
    rng = np.random.default_rng(0)
    d = cells.shape[1]
    rotated = np.pad(cells, ((0, 0), (0, 2))) @ np.linalg.qr(rng.normal(size=(d + 2, d + 2)))[0]
    coupling = uc.ot.solve_quadratic(rotated, cells, tau=0.95)
    assert foscttm(coupling.push(rotated), cells) < 0.03
    assert foscttm(coupling.pull(cells), rotated) < 0.03
    # Half as much noise as signal: alone, the shared features are wrong about one cell in six.
    shared = cells[:, :2] + cells[:, :2].std(axis=0) * 0.5 * rng.normal(size=(2, len(cells), 2))
    both = {"x_shared": shared[0], "y_shared": shared[1], "fused_weight": 0.1}
    fused = uc.ot.solve_quadratic(rotated, cells, **both, tau=0.95, n_starts=3)
    images = fused.push(np.concatenate([rotated, shared[0]], axis=1))
    assert foscttm(images[:, :d], cells) < 0.03


def test_anchors_and_unseen_cells(monkeypatch):
    rng = np.random.default_rng(0)
    both = rng.gamma(1.0, size=(700, 3)) * [3, 2, 1]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    x, y = both[:400], both[400:] @ turn
    monkeypatch.setattr(_quadratic, "COARSE_CELLS", 80)
    settings = {"tau": 0.95, "epsilon": 0.02, "anchors": 160, "rng": 3, "n_starts": 5}
    coupling = uc.ot.solve_quadratic(x, y, **settings)
    assert [len(side) for side in coupling.anchors] == [160, 160]
    source, target = (np.asarray(w, np.float64) for w in (coupling.source_weights, coupling.target_weights))
    assert source.sum() == pytest.approx(target.sum(), rel=1e-4)
    assert coupling.transported_mass == pytest.approx(source.sum())
    # One law for all: up to the common factor that makes masses agree, cells have the weights of their potentials.
    sides = ((coupling.source_rescaling(x) / 400, source), (coupling.target_rescaling(y) / 300, target))
    for rescaling, weights in sides:
        np.testing.assert_allclose(rescaling / rescaling.sum(), weights / weights.sum(), rtol=5e-3)
        assert rescaling.sum() == pytest.approx(weights.sum(), rel=0.05)
    unseen = rng.gamma(1.0, size=(300, 3)) * [3, 2, 1]
    assert foscttm(coupling.push(unseen) @ turn.T, unseen) < 0.1
    i, j = coupling.sample_pairs(0, 2_000)
    assert np.mean((y[j] @ turn.T - x[i]) ** 2) < 0.5 * np.mean((y[j] @ turn.T - x[np.roll(i, 1)]) ** 2)
    rows, columns = np.arange(50), np.arange(0, 300, 2)
    pool = coupling.sample_partners(0, rows, columns, 64)
    assert pool.shape == (50, 64)
    share = plan(coupling)[np.ix_(rows, columns)]
    share *= 64 / share.sum(axis=1, keepdims=True)
    # At even steps, a column is drawn as often as its share says, to within one.
    assert np.abs(np.stack([np.bincount(row, minlength=150) for row in pool]) - share).max() < 1.001
    few = {**settings, "n_starts": 1}
    np.testing.assert_array_equal(uc.ot.solve_quadratic(x, y, **few).f, uc.ot.solve_quadratic(x, y, **few).f)


@pytest.mark.parametrize("cost", ["euclidean", "cosine", ("geodesic", "sqeuclidean"), uc.ot.Geodesic(8, power=1.0)])
def test_costs_within_the_spaces(cost):
    x, y, *_ = spaces(60, 50)
    coupling = uc.ot.solve_quadratic(x, y, cost=cost, tau=0.9, epsilon=0.05, n_starts=1, threshold=1e-4)
    assert coupling.converged
    assert 0 < coupling.plan_change <= 1e-4
    # The linearised cost is that of the plan: here, written out for distances that scipy knows.
    if isinstance(cost, str):
        a, b = np.full(60, 1 / 60), np.full(50, 1 / 50)
        dx, dy, spread = parts(x - x.mean(0), y - y.mean(0), a, b, cost)
        p = plan(coupling) / plan(coupling).sum()
        expected = ((dx**2 @ p.sum(1))[:, None] + dy**2 @ p.sum(0) - 2 * dx @ p @ dy.T) / spread
        found = coupling.cost.rows(x)
        np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=2e-3)
        np.testing.assert_allclose(coupling.cost.columns(y).T, found, atol=1e-4)
    np.testing.assert_allclose(coupling.source_rescaling(x) / 60, coupling.source_weights, rtol=5e-3)
    np.testing.assert_allclose(coupling.target_rescaling(y) / 50, coupling.target_weights, rtol=5e-3)


def test_shared_features_keep_one_origin():
    x, y, x_shared, y_shared = spaces()
    coupling = uc.ot.solve_quadratic(x, y, x_shared=x_shared, y_shared=y_shared + 3, tau=0.9, epsilon=0.05, n_starts=1)
    # Batches compare them as the coupling keeps them: shifted apart, they would be another problem.
    np.testing.assert_array_equal(coupling.shift[3:], coupling.target_shift[5:])
    np.testing.assert_allclose(coupling.x[:, 3:] + coupling.shift[3:], x_shared, atol=1e-5)
    np.testing.assert_allclose(coupling.y[:, 5:] + coupling.target_shift[5:], y_shared + 3, atol=1e-5)


@pytest.mark.parametrize("tau", [(0.95, 0.95), (1.0, 1.0)])
def test_batches_agree_with_the_whole_problem(tau):
    x, y, x_shared, y_shared = spaces(200, 200)
    coupling = uc.ot.solve_quadratic(
        x, y, x_shared=x_shared, y_shared=y_shared, fused_weight=0.2, tau=tau, epsilon=0.05, n_starts=1
    )
    reference = QuadraticReference.of(coupling)
    solve = jax.jit(quadratic_batch)
    whole = solve(coupling.x, coupling.y, reference, threshold=1e-3, max_outer=200)
    expected = plan(coupling)
    assert whole.change <= 1e-3
    assert whole.marginal_error <= 1e-3
    assert np.abs(np.exp(whole.log_plan) - expected).sum() < 0.02 * expected.sum()
    rng = np.random.default_rng(0)
    for _ in range(3):
        i, j = (np.sort(rng.permutation(200)[:100]) for _ in range(2))
        found = np.exp(np.asarray(solve(coupling.x[i], coupling.y[j], reference).log_plan, np.float64))
        assert found.sum() == pytest.approx(coupling.transported_mass, rel=0.15)
        images = found @ np.asarray(coupling.y)[j] / found.sum(1, keepdims=True)
        # Over the same targets: which were drawn is the batch's luck, not its solution.
        expected = coupling.push(np.concatenate([x, x_shared], axis=1)[i], columns=j) - coupling.target_shift
        assert np.mean((images - expected) ** 2) < 0.2 * expected.var()


def test_batches_know_no_graph():
    x, y, *_ = spaces()
    coupling = uc.ot.solve_quadratic(x, y, cost="geodesic", tau=0.9, epsilon=0.1, n_starts=1)
    with pytest.raises(ValueError, match="functions of two cells for transport between batches, found a geodesic"):
        QuadraticReference.of(coupling)


SHARED = {"x_shared": np.ones((40, 2)), "y_shared": np.ones((30, 2))}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"x_shared": np.ones((40, 2))}, "`x_shared` and `y_shared` together, found only one"),
        ({"fused_weight": 0.5}, "`x_shared` and `y_shared` with `fused_weight` 0.5, found none"),
        ({"fused_weight": 1.5, **SHARED}, r"`fused_weight` to be in \[0, 1\], found 1.5"),
        ({**SHARED, "y_shared": np.ones((30, 3))}, r"shapes \(40, k\) and \(30, k\), found \(40, 2\) and \(30, 3\)"),
        (SHARED, "shared features to differ between cells"),
        ({"cost": "manhattan"}, "`cost` to be one of"),
        ({"cost": ("euclidean",)}, "one cost or a tuple of two, found 1"),
        ({"epsilon": 0.0}, "`epsilon` to be a positive number"),
        ({"n_starts": 0}, "`n_starts` to be a positive integer"),
        ({"max_iterations": 0}, "`max_iterations` to be a positive integer"),
        ({"anchors": 0}, "`anchors` to be a positive integer"),
        ({"tau": 0.9, "marginal_penalty": 1.0}, "found both"),
        ({"a": np.zeros(40)}, "not all zero"),
    ],
)
def test_bad_arguments(kwargs, message):
    x, y, *_ = spaces()
    with pytest.raises(ValueError, match=message):
        uc.ot.solve_quadratic(x, y, **kwargs)


def test_bad_spaces():
    x, y, *_ = spaces()
    with pytest.raises(ValueError, match="positive mean cost between the cells of `y`"):
        uc.ot.solve_quadratic(x, np.ones((30, 2)))
    with pytest.raises(ValueError, match="finite, found NaN or inf in 1 of 40 rows"):
        uc.ot.solve_quadratic(np.where(np.arange(40)[:, None] == 7, np.nan, x), y)
    same = np.full((40, 1), 1234567.1)  # but for rounding
    with pytest.raises(ValueError, match="shared features to differ between cells, found one value"):
        uc.ot.solve_quadratic(x, y, x_shared=same, y_shared=same[:30] * (1 + 1e-14))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"memory_limit": "100KB"}, r"costs between 40 anchors a side to fit into 100 KB .* need 204.8 KB\. Lower"),
        ({"memory_limit": 600, "anchors": 2, "cost": "geodesic"}, r"path lengths .* of `x` and 2 anchors"),
        ({"memory_limit": 600, "anchors": 2, "cost": "cosine"}, r"cells to 2 anchors .* use squared Euclidean"),
    ],
)
def test_too_large_problems_are_refused(kwargs, message):
    x, y, *_ = spaces()
    with pytest.raises(MemoryError, match=message):
        uc.ot.solve_quadratic(x, y, **kwargs)


def test_failures_are_loud():
    x, y, *_ = spaces()
    with pytest.raises(uc.ConvergenceError, match=r"still changed by .* after \d+ linear problems"):
        uc.ot.solve_quadratic(x, y, epsilon=0.02, max_iterations=2, n_starts=1)
    # Shared features far apart and a penalty far below their cost: destroying everything is cheapest.
    x, y, x_shared, y_shared = spaces()
    far = {"x_shared": 0.1 * x_shared, "y_shared": 0.1 * y_shared + 50}
    with pytest.raises(uc.ConvergenceError, match=r"transports .* of a mass of 1"):
        uc.ot.solve_quadratic(x, y, **far, epsilon=0.001, tau=0.5, n_starts=1)
