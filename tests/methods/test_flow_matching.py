"""UOT-FM as a method: its paths and pairs, its flow and density, its options."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_oracle import make_oracle
from scipy.linalg import expm

import uotcell as uc
from uotcell.methods import ICNN, Batch, FlowMatching
from uotcell.methods._flow import BRIDGE_MARGIN
from uotcell.methods._ode import flow
from uotcell.train import _program
from uotcell.train._data import BatchProblem, draw_minibatch, draw_pairs, training_data

TRAINED = {"n_iters": 500, "valid_fraction": 0.0, "ema_decay": 0.99, "progress": False}


def fit_oracle(dim, method, n, **options):
    oracle = make_oracle(dim, 12.0)
    x, y = oracle.sample(n, seed=1)
    coupling = uc.ot.solve_unbalanced(x, y, marginal_penalty=oracle.penalty / oracle.mean_cost)
    fitted, _ = uc.train.fit(method, coupling, **{**TRAINED, **options})
    mean, var = oracle.rescaled_source
    fresh = mean + np.random.default_rng(3).normal(size=(200, dim)) * np.sqrt(var)
    return oracle, fitted, fresh


@pytest.fixture(scope="module")
def gaussian():
    """The closed form, a map fitted to it, and fresh cells of the rescaled source."""
    return fit_oracle(2, FlowMatching(hidden=(64, 64), learning_rate=3e-3, n_steps=40), 1000)


def test_reaches_the_closed_form_in_eight_dimensions():
    oracle, fitted, _ = fit_oracle(8, FlowMatching(hidden=(128, 128), learning_rate=3e-3, n_steps=10), 2000)
    assert oracle.l2_uvp(fitted.push) <= 6.0


def test_pull_inverts_push(gaussian):
    _, fitted, x = gaussian
    np.testing.assert_allclose(fitted.pull(fitted.push(x)), x, atol=1e-3)
    np.testing.assert_allclose(fitted.push(fitted.pull(x)), x, atol=1e-3)


def test_positions_lead_from_the_cell_to_its_image_and_back(gaussian):
    _, fitted, x = gaussian
    np.testing.assert_array_equal(fitted.interpolate(x, 0.0), x.astype(np.float32))
    np.testing.assert_allclose(fitted.interpolate(x, 1.0), fitted.push(x), atol=1e-5)
    times = [0.7, 0.0, 0.3, 1.0]
    for t, position in zip(times, fitted.trajectory(x, times), strict=True):
        # Several times are passed on one way, of other steps than the way to one time.
        np.testing.assert_allclose(position, fitted.interpolate(x, t), atol=1e-4)
    y = fitted.push(x)
    for t, position in zip(times, fitted.trajectory(y, times, backward=True), strict=True):
        np.testing.assert_allclose(position, fitted.interpolate(x, t), atol=1e-3)
    # The method's own trajectory takes all times at once.
    inner = fitted.method.trajectory(
        fitted.params, jnp.float32((x - fitted.shift) / fitted.scale), jnp.linspace(0, 1, 3)
    )
    np.testing.assert_allclose(inner[1] * fitted.scale + fitted.shift, fitted.interpolate(x, 0.5), atol=1e-3)


def test_velocity_is_that_of_the_positions(gaussian):
    _, fitted, x = gaussian
    for t in (0.25, 0.75):
        here, before, after = fitted.trajectory(x, [t, t - 0.05, t + 0.05])
        np.testing.assert_allclose(fitted.velocity(here, t), (after - before) / 0.1, atol=0.05)
    times = (np.arange(20) + 0.5) / 20
    way = [fitted.velocity(position, t) for t, position in zip(times, fitted.trajectory(x, times), strict=True)]
    np.testing.assert_allclose(np.mean(way, axis=0), fitted.push(x) - x, atol=0.01)


def test_density_changes_by_the_determinant_of_the_map(gaussian):
    """log p_1(T(x)) − log p_0(x) = −log |det ∇T(x)|: the flow's own divergence against differences of its images."""
    oracle, fitted, x = gaussian
    step = 0.02
    columns = [(fitted.push(x + step * e) - fitted.push(x - step * e)) / (2 * step) for e in np.eye(2)]
    expected = -np.log(np.abs(np.linalg.det(np.stack(columns, axis=2))))
    found = fitted.log_density_change(x)
    np.testing.assert_allclose(found, expected, atol=0.02)
    # Between Gaussians it is −Σ log s whatever the cell.
    slope = oracle.push(np.ones(2)) - oracle.push(np.zeros(2))
    assert found.mean() == pytest.approx(-np.log(slope).sum(), abs=0.05)
    np.testing.assert_array_equal(fitted.log_density_change(x, 0.0), np.zeros(200))
    # On straight ways the part made by t is −Σ log(1 − t + t s).
    assert fitted.log_density_change(x, 0.5).mean() == pytest.approx(-np.log(0.5 + 0.5 * slope).sum(), abs=0.05)


def test_density_of_a_straight_map_is_the_determinant_of_its_hessian():
    method = ICNN(hidden=(16, 16), n_inner=1)
    rng = np.random.default_rng(0)
    coupling = uc.ot.solve_unbalanced(rng.normal(size=(100, 3)) * 2 + 5, rng.normal(size=(100, 3)) + 4)
    fitted, _ = uc.train.fit(method, coupling, n_iters=5, batch_size=32, progress=False)
    x = rng.normal(size=(20, 3)) + 5

    def potential(point):
        return method._potential(fitted.params["source"], point[None])[0]

    hessian = jax.vmap(jax.hessian(potential))(jnp.float32((x - fitted.shift) / fitted.scale))
    for t in (0.3, 1.0):
        jacobian = (1 - t) * np.eye(3) + t * np.asarray(hessian)
        np.testing.assert_allclose(fitted.log_density_change(x, t), -np.linalg.slogdet(jacobian)[1], atol=1e-3)


@pytest.mark.parametrize(
    ("solver", "n_steps", "bound"),
    [("euler", 400, 0.02), ("heun", 100, 2e-3), ("tsit5", FlowMatching().n_steps, 2e-3)],
)
def test_solvers_agree(gaussian, solver, n_steps, bound):
    _, fitted, x = gaussian
    other = FlowMatching(hidden=fitted.method.hidden, solver=solver, n_steps=n_steps)
    cells = jnp.float32((x - fitted.shift) / fitted.scale)
    image = fitted.method.push(fitted.params, cells)
    np.testing.assert_allclose(other.push(fitted.params, cells), image, atol=bound)
    np.testing.assert_allclose(other.pull(fitted.params, image), cells, atol=bound)


def test_a_lower_tolerance_means_a_lower_error(gaussian):
    """A tolerance bounds the error of one step: that of the whole way is several times as large."""
    _, fitted, x = gaussian
    cells = jnp.float32((x - fitted.shift) / fitted.scale)
    image = fitted.method.push(fitted.params, cells)
    adaptive = [
        FlowMatching(hidden=fitted.method.hidden, n_steps=None, tolerance=tolerance) for tolerance in (1e-3, 1e-5)
    ]
    errors = [float(jnp.sqrt(jnp.mean((m.push(fitted.params, cells) - image) ** 2))) for m in adaptive]
    assert errors[0] <= 0.01
    assert errors[1] <= 0.1 * errors[0]


@pytest.mark.parametrize(
    ("solver", "n_steps", "bound"),
    [("tsit5", None, 1e-4), ("tsit5", 20, 1e-5), ("heun", 200, 1e-4), ("euler", 400, 1e-2)],
)
@pytest.mark.parametrize("times", [(0.0, 0.2, 0.7, 1.0), (1.0, 0.6, 0.1), (0.0, 1.0)])
def test_a_linear_equation_is_followed_to_its_exponential(solver, n_steps, bound, times):
    """dx/dt = A x + b row has the solution e^{A (t − t₀)} (x + A⁻¹ b) − A⁻¹ b."""
    matrix, offset = np.array([[0.3, -1.2], [1.0, -0.5]]), np.array([0.5, -1.0])
    x = np.random.default_rng(0).normal(size=(5, 2))

    def field(t, state, row):
        return jnp.asarray(matrix) @ state + row * jnp.asarray(offset)

    found = flow(field, jnp.float32(x), jnp.array(times), solver=solver, n_steps=n_steps, tolerance=1e-6)
    assert found.shape == (len(times), 5, 2)
    for t, states in zip(times, found, strict=True):
        for row, state in enumerate(states):
            rest = np.linalg.solve(matrix, row * offset)
            np.testing.assert_allclose(state, expm(matrix * (t - times[0])) @ (x[row] + rest) - rest, atol=bound)


def test_time_reaches_the_field():
    found = flow(lambda t, state, _: jnp.full(1, 3 * t**2), jnp.zeros((2, 1)), jnp.array([0.0, 0.5, 1.0]),
                 solver="tsit5", n_steps=4, tolerance=1e-3)  # fmt: skip
    np.testing.assert_allclose(found[:, 0, 0], [0, 0.125, 1], atol=1e-5)


def test_no_way_is_no_move():
    for n_steps in (None, 5):
        found = flow(lambda t, x, _: x, jnp.ones((2, 1)), jnp.zeros(2), solver="tsit5", n_steps=n_steps, tolerance=1e-3)
        np.testing.assert_array_equal(found, np.ones((2, 2, 1)))


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.5, 1.0)])
def test_a_row_whose_steps_become_too_many_is_not_a_number(times):
    """One of two rows turns a hundred thousand times; the other one, which rests, arrives."""

    def field(t, state, row):
        return row * 1e6 * jnp.cos(1e6 * t + state)

    found = flow(field, jnp.ones((2, 1)), jnp.array(times), solver="tsit5", n_steps=None, tolerance=1e-6)
    np.testing.assert_array_equal(found[:, 0], 1)
    assert np.isnan(found[:, 1]).all()


def test_equal_steps_may_be_many():
    options = {"solver": "euler", "n_steps": 5_000, "tolerance": 1.0}
    found = flow(lambda t, x, _: -x, jnp.ones((1, 1)), jnp.array([0.0, 1.0]), **options)
    assert float(found[-1, 0, 0]) == pytest.approx(np.exp(-1.0), rel=1e-3)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_halving_the_steps_divides_the_error_by_the_order(solver, order):
    errors = []
    for n_steps in (32, 64):
        options = {"solver": solver, "n_steps": n_steps, "tolerance": 1.0}
        found = flow(lambda t, x, _: -4 * x, jnp.ones((1, 1)), jnp.array([0.0, 1.0]), **options)
        errors.append(abs(float(found[-1, 0, 0]) - np.exp(-4.0)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


def path(n, *, seed=0, **options):
    start, end = jnp.tile(jnp.array([[1.0, -2.0]]), (n, 1)), jnp.tile(jnp.array([[4.0, 2.0]]), (n, 1))
    return start, end, *FlowMatching(**options)._path(jax.random.key(seed), start, end)


def test_one_time_from_each_of_equal_parts():
    *_, t, _, _ = path(64)
    np.testing.assert_array_equal(np.floor(np.asarray(t) * 64), np.arange(64))
    *_, other, _, _ = path(64, seed=1)
    assert np.abs(t - other).min() > 0


def test_without_noise_paths_are_straight():
    start, end, t, point, velocity = path(100)
    np.testing.assert_allclose(point, start + t[:, None] * (end - start), atol=1e-6)
    np.testing.assert_array_equal(velocity, end - start)


@pytest.mark.parametrize("schedule", ["constant", "bridge"])
def test_noise_around_the_path(schedule):
    start, end, t, point, velocity = (np.asarray(v) for v in path(200_000, noise=0.5, noise_schedule=schedule))
    straight = start + t[:, None] * (end - start)
    for low in (0.0, 0.2, 0.45, 0.8):
        here = (t >= low) & (t < low + 0.2)
        variance = 0.5**2 * (np.mean(t[here] * (1 - t[here])) if schedule == "bridge" else 1.0)
        noise = point[here] - straight[here]
        np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.01)
        np.testing.assert_allclose(np.cov(noise.T), variance * np.eye(2), atol=0.03 * variance + 1e-4)
    if schedule == "constant":
        np.testing.assert_array_equal(velocity, end - start)
    else:
        assert t.min() >= BRIDGE_MARGIN
        assert t.max() <= 1 - BRIDGE_MARGIN


def test_the_bridge_regresses_on_the_velocity_of_its_points():
    """The formula of torchcfm's SchrodingerBridgeConditionalFlowMatcher, and the derivative of the point in time."""
    start, end, t, point, velocity = path(1000, noise=0.5, noise_schedule="bridge")
    s = np.asarray(t, np.float64)[:, None]
    straight = (1 - s) * start + s * end
    published = (1 - 2 * s) / (2 * s * (1 - s)) * (point - straight) + end - start
    np.testing.assert_allclose(velocity, published, rtol=1e-2, atol=1e-2)
    # One draw of noise, moved in time.
    draw = (np.asarray(point) - straight) / np.sqrt(s * (1 - s))
    inner = (s[:, 0] > 0.05) & (s[:, 0] < 0.95)

    def at(time):
        return (1 - time) * start + time * end + np.sqrt(time * (1 - time)) * draw

    slope = (at(s + 1e-5) - at(s - 1e-5)) / 2e-5
    np.testing.assert_allclose(np.asarray(velocity)[inner], slope[inner], rtol=1e-2, atol=2e-2)


def test_gradients_are_clipped_before_adam():
    """A thousandfold error moves parameters as one of norm one does, and leaves the same moments in Adam."""
    method, free = (
        FlowMatching(hidden=(8,), decay="constant"),
        FlowMatching(hidden=(8,), decay="constant", clip_norm=1e9),
    )
    start = method.init(jax.random.key(0), 2)
    source = jax.random.normal(jax.random.key(1), (1, 32, 2))

    def moments(method, size):
        state = start._replace(optimizer=method.init_optimizer(start.params))
        state, _ = method.update(state, Batch(source, source + size), jax.random.key(2), 0.0)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(optax.tree.get(state.optimizer, "mu"))])

    assert np.linalg.norm(moments(method, 1e3)) == pytest.approx(0.1, rel=1e-4)  # (1 − β₁) · 1
    assert np.linalg.norm(moments(free, 1e3)) > 10
    small = [np.linalg.norm(moments(m, 1e-3)) for m in (method, free)]
    assert small[0] == pytest.approx(small[1], rel=1e-6)
    assert small[0] < 0.1


@pytest.fixture(scope="module")
def tiny():
    """Six against five cells, whose plan can be written down, and its normalised plan."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(5, 2)) + 0.5
    coupling = uc.ot.solve_unbalanced(x, y, tau=0.9, epsilon=0.2)
    cost = ((np.asarray(coupling.x)[:, None] - np.asarray(coupling.y)) ** 2).sum(-1) / coupling.scale
    f, g = np.asarray(coupling.f), np.asarray(coupling.g)
    plan = np.exp((f[:, None] + g - cost) / coupling.epsilon) / 30
    return coupling, plan / plan.sum()


def counts(batch, coupling, data):
    """How often each pair of cells was drawn, as a share."""
    source = np.asarray(batch.source).reshape(-1, 2) * float(data.frame.scale) + np.asarray(data.frame.shift)
    target = np.asarray(batch.target).reshape(-1, 2) * float(data.frame.scale) + np.asarray(data.frame.shift)
    i = ((source[:, None] - np.asarray(coupling.x)) ** 2).sum(-1).argmin(1)
    j = ((target[:, None] - np.asarray(coupling.y)) ** 2).sum(-1).argmin(1)
    joint = np.zeros((len(coupling.x), len(coupling.y)))
    np.add.at(joint, (i, j), 1 / len(i))
    return joint


def test_pairs_follow_the_plan(tiny):
    coupling, plan = tiny
    np.testing.assert_allclose(plan.sum(1), coupling.source_weights / coupling.transported_mass, atol=1e-3)
    data, *_ = training_data(
        coupling, np.arange(6), np.arange(5), rescaling="global", samples="pairs", rng=jax.random.key(0)
    )
    joint = counts(draw_pairs(jax.random.key(1), data, (1, 100_000)), coupling, data)
    independent = plan.sum(1)[:, None] * plan.sum(0)
    # A pool of 128 per row knows shares to within one in 128 of the row.
    assert np.abs(joint - plan).max() < 0.01
    assert np.abs(joint - plan).sum() < 0.1 * np.abs(independent - plan).sum()


def test_pairs_of_batches_follow_the_plan(tiny):
    """In the limit of large batches; here 256 draws of six and five cells."""
    coupling, plan = tiny
    data, *_ = training_data(coupling, np.arange(6), np.arange(5), rescaling="minibatch", samples="pairs")
    batch, error = draw_minibatch(jax.random.key(1), data, (200, 256), BatchProblem.of(coupling), "pairs")
    joint = counts(batch, coupling, data)
    independent = plan.sum(1)[:, None] * plan.sum(0)
    assert float(error) <= 1e-3
    assert np.abs(joint - plan).max() < 0.01
    assert np.abs(joint - plan).sum() < 0.1 * np.abs(independent - plan).sum()


def test_pairs_never_hold_held_out_cells(tiny):
    coupling, plan = tiny
    rows, columns = np.array([0, 2, 3, 5]), np.array([0, 1, 4])
    data, *_ = training_data(coupling, rows, columns, rescaling="global", samples="pairs", rng=jax.random.key(0))
    joint = counts(draw_pairs(jax.random.key(1), data, (1, 50_000)), coupling, data)
    kept = plan[np.ix_(rows, columns)]
    expected = kept / kept.sum(1, keepdims=True) * (plan.sum(1)[rows] / plan.sum(1)[rows].sum())[:, None]
    np.testing.assert_allclose(joint[np.ix_(rows, columns)], expected, atol=0.01)
    assert joint.sum() - joint[np.ix_(rows, columns)].sum() == pytest.approx(0, abs=1e-9)


def test_pairs_of_batches_never_hold_held_out_cells(tiny):
    coupling, _ = tiny
    rows, columns = np.array([0, 2, 3, 5]), np.array([0, 1, 4])
    data, *_ = training_data(coupling, rows, columns, rescaling="minibatch", samples="pairs")
    batch, _ = draw_minibatch(jax.random.key(1), data, (50, 64), BatchProblem.of(coupling), "pairs")
    joint = counts(batch, coupling, data)
    assert joint[np.ix_(rows, columns)].sum() == pytest.approx(1)


def test_independent_pairs_are_independent(tiny):
    coupling, _ = tiny
    seen = []

    class Spy(FlowMatching):
        def update(self, state, batch, rng, progress):
            x, y = batch.source[0], batch.target[0]
            product = ((x - x.mean(0)) * (y - y.mean(0))).sum(-1).mean()
            return state, {"loss": product}

    for pairs in ("plan", "independent"):
        _, history = uc.train.fit(
            Spy(hidden=(4,), coupling=pairs), coupling, n_iters=100, batch_size=256, log_every=100, valid_fraction=0.0,
            progress=False,
        )  # fmt: skip
        seen.append(history.losses["loss"][0])
    assert seen[0] > 0.3
    assert seen[1] == pytest.approx(0, abs=0.02)
    assert FlowMatching().samples == "pairs"
    assert FlowMatching(coupling="independent").samples == "marginals"


def test_the_average_suits_flows(tiny):
    """By default the parameters of a flow are averaged with decay 0.999, less in short runs, and 0 turns that off."""
    coupling, _ = tiny
    seen = []
    original = _program.averaged

    def spy(settings, carry, step, n_iters):
        decays = [float(_program.decay_of(settings, n)) for n in (1, 1_000, 100_000)] if settings.ema_decay else None
        seen.append(decays)
        return original(settings, carry, step, n_iters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uotcell.train._loop.averaged", spy)
        for decay in (None, 0.0, 0.5):
            uc.train.fit(
                FlowMatching(hidden=(4,)), coupling, n_iters=1, batch_size=4, ema_decay=decay, valid_fraction=0.0,
                progress=False,
            )  # fmt: skip
    assert seen[0] == pytest.approx([0.0, 0.99, 0.999])
    assert seen[1] is None
    assert seen[2] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coupling": "optimal"}, "`coupling` to be 'plan' or 'independent', found 'optimal'"),
        ({"activation": "step"}, "`activation` to be one of"),
        ({"noise_schedule": "cosine"}, r"`noise_schedule` to be one of \['constant', 'bridge'\]"),
        ({"noise": -0.1}, "non-negative `noise`"),
        ({"noise": float("nan")}, "non-negative `noise`"),
        ({"clip_norm": 0.0}, "positive `clip_norm`"),
        ({"hidden": ()}, "positive `hidden`"),
        ({"hidden": (8, 0)}, "positive `hidden`"),
        ({"solver": "rk4"}, r"`solver` to be one of \['tsit5', 'heun', 'euler'\], found 'rk4'"),
        ({"solver": "heun", "n_steps": None}, "`n_steps` with solver='heun'"),
        ({"n_steps": 0}, "`n_steps` to be a positive integer or None, found 0"),
        ({"n_steps": True}, "`n_steps` to be a positive integer"),
        ({"tolerance": 0.0}, "`tolerance` to be positive"),
        ({"learning_rate": 0.0}, "`learning_rate` to be positive"),
        ({"decay": "linear"}, "`decay` to be"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        FlowMatching(**options)


def test_options_at_their_bounds_are_taken():
    assert FlowMatching(hidden=(1,), noise=0.0, n_steps=1).hidden == (1,)


def test_unknown_options_raise():
    with pytest.raises(TypeError, match="sigma"):
        FlowMatching(sigma=0.1)
