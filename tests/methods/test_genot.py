"""GENOT as a method: what it regresses on, the distribution it draws from, and maps between spaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_oracle import Oracle, make_oracle

import uotcell as uc
from uotcell.methods import GENOT, ICNN, Batch, FlowMatching, MongeGap, PairSummary

TRAINED = {"n_iters": 600, "valid_fraction": 0.0, "ema_decay": 0.99, "progress": False}
METHOD = GENOT(hidden=(64, 64), learning_rate=3e-3)


def batch_of(n=64, dim=2, seed=0):
    rng_x, rng_y = jax.random.split(jax.random.key(seed))
    return Batch(3 + jax.random.normal(rng_x, (1, n, dim)), jax.random.normal(rng_y, (1, n, dim)) - 1)


def loss_of(field, batch, **options):
    """The loss of a velocity field that knows the answer."""

    class Known(GENOT):
        def _velocity(self, params, x, t, condition=None):
            return field(x, t, condition)

    method = Known(hidden=(4,), **options)
    state = method.init(jax.random.key(0), batch.source.shape[-1])
    return float(method.update(state, batch, jax.random.key(1), 0.0)[1]["loss"])


def test_regresses_on_target_minus_latent_noise():
    """Where all targets are one point c, the flow from noise is (c − z_t)/(1 − t) exactly, whatever the source."""
    batch = batch_of()
    point = jnp.array([2.0, -1.0])
    batch = batch._replace(target=jnp.broadcast_to(point, batch.target.shape))
    assert loss_of(lambda x, t, _: (point - x) / (1 - t)[:, None], batch) == pytest.approx(0, abs=1e-5)
    # The field of the mistake, target − source, is off by source − noise: E ‖x − z‖² = ‖x‖² + d.
    off = loss_of(lambda x, t, source: point - source, batch)
    assert off == pytest.approx(float((batch.source[0] ** 2).sum(1).mean()) + 2, rel=0.3)


def test_every_pair_is_conditioned_on_its_own_source_and_has_noise_of_its_own():
    """A field that knows the latent noise from x_t and its pair's target, found by its source, has loss zero."""
    batch = batch_of()
    source, target = batch.source[0], batch.target[0]

    def field(x, t, condition):
        own = target[jnp.argmin(((condition[:, None] - source) ** 2).sum(-1), axis=1)]
        return (own - x) / (1 - t)[:, None]

    def shifted(x, t, condition):
        return field(x, t, jnp.roll(condition, 1, axis=0))

    assert loss_of(field, batch) == pytest.approx(0, abs=1e-4)
    assert loss_of(shifted, batch) > 1
    # E ‖z‖² = d of the velocity y − z: noise is standard normal, and differs between pairs.
    spread = loss_of(lambda x, t, _: target, batch)
    assert spread == pytest.approx(2, rel=0.3)
    assert loss_of(lambda x, t, _: target - jnp.mean((x - t[:, None] * target) / (1 - t)[:, None], axis=0), batch) > 1


def test_noise_is_added_around_the_path_from_the_latent():
    point = jnp.array([2.0, -1.0])
    batch = batch_of(n=4096)._replace(target=jnp.broadcast_to(point, (1, 4096, 2)))
    # The path's noise σ w reaches the exact field at t as σ w/(1 − t): at t < ½ its square is at most 4 σ² d.
    early = loss_of(lambda x, t, _: jnp.where(t[:, None] < 0.5, (point - x) / (1 - t)[:, None], 0), batch, noise=0.1)
    none = loss_of(lambda x, t, _: jnp.where(t[:, None] < 0.5, (point - x) / (1 - t)[:, None], 0), batch)
    # ∫₀^½ σ² d/(1 − t)² dt = σ² d
    assert early - none == pytest.approx(0.1**2 * 2, rel=0.3)


def fit_oracle(dim, method, n=2000, **options):
    oracle = make_oracle(dim, 12.0)
    x, y = oracle.sample(n, seed=1)
    coupling = uc.ot.solve_unbalanced(x, y, marginal_penalty=oracle.penalty / oracle.mean_cost)
    fitted, _ = uc.train.fit(method, coupling, **{**TRAINED, **options})
    return oracle, coupling, fitted


def test_the_mean_reaches_the_closed_form_in_eight_dimensions():
    oracle, _, fitted = fit_oracle(8, GENOT(hidden=(128, 128), learning_rate=3e-3), n_iters=800)
    assert oracle.l2_uvp(fitted.push) <= 6.0


@pytest.fixture(scope="module")
def entropic():
    """Balanced Gaussians at a large ε: conditional laws of the closed form (Janati et al. 2020), and a fitted map.

    Per coordinate, with ε the weight of KL, the plan's covariance is C = ½ √(4AB + ε²/4) − ε/4; given x the target has
    mean b + C/A (x − a) and variance B − C²/A.
    """
    oracle = Oracle(1e6, np.zeros(2), np.array([1.0, 1.5]), np.array([2.0, -1.0]), np.array([2.0, 0.8]))
    x, y = oracle.sample(1500, seed=1)
    coupling = uc.ot.solve_unbalanced(x, y, epsilon=0.2)
    epsilon = coupling.epsilon * coupling.scale
    covariance = 0.5 * np.sqrt(4 * oracle.source_var * oracle.target_var + epsilon**2 / 4) - epsilon / 4
    fitted, _ = uc.train.fit(METHOD, coupling, **TRAINED)
    return oracle, coupling, covariance, fitted


def test_the_plan_is_that_of_the_closed_form(entropic):
    oracle, coupling, covariance, _ = entropic
    x, y = np.asarray(coupling.x, np.float64), np.asarray(coupling.y, np.float64)
    cost = ((x[:, None] - y) ** 2).sum(-1) / coupling.scale
    potential = np.asarray(coupling.f, np.float64)[:, None] + np.asarray(coupling.g, np.float64)
    plan = np.exp((potential - cost) / coupling.epsilon)
    plan /= plan.sum()
    cross = (x - x.mean(0)).T @ plan @ (y - y.mean(0))
    np.testing.assert_allclose(cross, np.diag(covariance), atol=0.05)
    image = coupling.push(x + coupling.shift)
    expected = oracle.target_mean + covariance / oracle.source_var * (x + coupling.shift)
    assert ((image - expected) ** 2).sum(1).mean() <= 0.01 * oracle.target_var.sum()


def test_conditional_means_and_variances_are_those_of_the_plan(entropic):
    oracle, coupling, covariance, fitted = entropic
    x = np.random.default_rng(3).normal(size=(300, 2)) * np.sqrt(oracle.source_var)
    mean = oracle.target_mean + covariance / oracle.source_var * x
    variance = oracle.target_var - covariance**2 / oracle.source_var
    assert ((fitted.push(x) - mean) ** 2).sum(1).mean() <= 0.03 * oracle.target_var.sum()
    np.testing.assert_allclose(fitted.variance(x).mean(axis=0), variance, rtol=0.1)
    # The plan's own, cell by cell.
    seen, y = np.asarray(coupling.x, np.float64)[:200], np.asarray(coupling.y, np.float64)
    cost = ((seen[:, None] - y) ** 2).sum(-1) / coupling.scale
    row = np.exp((np.asarray(coupling.g, np.float64) - cost) / coupling.epsilon)
    row /= row.sum(1, keepdims=True)
    spread = (row @ y**2 - (row @ y) ** 2).mean(axis=0)
    np.testing.assert_allclose(spread, variance, rtol=0.1)
    np.testing.assert_allclose(fitted.variance(seen + coupling.shift).mean(axis=0), spread, rtol=0.1)


def test_draws_have_the_mean_and_the_variance(entropic):
    *_, fitted = entropic
    x = np.random.default_rng(4).normal(size=(50, 2))
    draws = fitted.sample(x, 400, rng=0)
    assert draws.shape == (400, 50, 2)
    spread = np.sqrt(fitted.variance(x))
    assert np.abs(draws.mean(axis=0) - fitted.push(x)).max() < 0.3 * spread.max()
    np.testing.assert_allclose(draws.var(axis=0).mean(axis=0), fitted.variance(x).mean(axis=0), rtol=0.1)
    # Across cells and draws nothing is shared.
    noise = (draws - draws.mean(axis=0))[:, :, 0]
    between = np.corrcoef(noise.T) - np.eye(50)
    assert np.abs(between).max() < 0.25


def test_a_draw_depends_on_row_and_seed_alone(entropic):
    *_, fitted = entropic
    x = np.random.default_rng(4).normal(size=(50, 2))
    draws = fitted.sample(x, 3, rng=7)
    np.testing.assert_allclose(fitted.sample(x, 3, rng=7, batch_size=16), draws, atol=1e-5)
    np.testing.assert_allclose(fitted.sample(x[:20], 3, rng=7), draws[:, :20], atol=1e-5)
    np.testing.assert_allclose(fitted.sample(x, 2, rng=7), draws[:2], atol=1e-5)
    assert np.abs(fitted.sample(x, 3, rng=8) - draws).mean() > 0.1
    same = fitted.sample(np.tile(x[:1], (50, 1)), 1, rng=7)[0]
    assert len(np.unique(same, axis=0)) == 50
    with pytest.raises(ValueError, match="`n_samples` to be at least 1"):
        fitted.sample(x, 0)


def test_means_depend_on_no_seed_and_no_other_cell(entropic):
    *_, fitted = entropic
    x = np.random.default_rng(4).normal(size=(50, 2))
    for answer in (fitted.push, fitted.variance):
        np.testing.assert_allclose(answer(x[[3]]), answer(x)[[3]], atol=1e-5)
        np.testing.assert_allclose(answer(x, batch_size=7), answer(x), atol=1e-5)


def test_only_methods_that_draw_have_a_variance():
    assert [m().is_stochastic for m in (GENOT, FlowMatching, ICNN, MongeGap)] == [True, False, False, False]
    method = FlowMatching(hidden=(4,))
    with pytest.raises(TypeError, match="no conditional variance"):
        method.variance(method.init(jax.random.key(0), 2).params, jnp.ones((3, 2)))


@pytest.fixture(scope="module")
def emt():
    """Cells of one time in ten dimensions, and the same cells turned into twelve."""
    cells = uc.datasets.emt()
    y = np.asarray(cells.obsm["X_embedding"], np.float64)[cells.obs["time"] == 3.0][::3]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0][:10]
    return y @ turn * 5 + 2, y


@pytest.fixture(scope="module")
def quadratic(emt):
    return uc.ot.solve_quadratic(*emt, epsilon=0.005, tau=0.99)


def fit_across(coupling, **options):
    return uc.train.fit(METHOD, coupling, **{**TRAINED, **options})[0]


@pytest.fixture(scope="module")
def across(quadratic):
    return fit_across(quadratic)


def test_cells_find_themselves_in_the_other_space(emt, across):
    x, y = emt
    image = across.push(x)
    assert image.shape == y.shape
    assert uc.metrics.foscttm(image, y) <= 0.15


def test_shared_features_help_cells_to_find_themselves(emt):
    x, y = emt
    shared = y[:, :3]
    coupling = uc.ot.solve_quadratic(x, y, x_shared=shared, y_shared=shared, epsilon=0.005, tau=0.99)
    image = fit_across(coupling).push(np.concatenate([x, shared], axis=1))
    assert image.shape == (len(y), 13)
    assert uc.metrics.foscttm(image[:, :10], y) <= 0.05


def test_batches_across_spaces_agree_with_the_whole(emt, quadratic):
    x, y = emt
    fitted = fit_across(quadratic, rescaling="minibatch", batch_size=64, n_iters=300)
    # The true partner of a cell is in one of five batches: means of a cell's partners are pulled to the middle.
    assert uc.metrics.foscttm(fitted.push(x), y) <= 0.15


def test_between_spaces_there_is_no_way(emt, across):
    x, _ = emt
    for call in (
        lambda: across.interpolate(x, 0.5),
        lambda: across.trajectory(x, [0.0, 1.0]),
        lambda: across.velocity(x),
        lambda: across.log_density_change(x),
    ):
        with pytest.raises(TypeError, match=r"between spaces has no way .*`push` or `sample`"):
            call()
    with pytest.raises(TypeError, match="learns no inverse"):
        across.pull(emt[1])
    with pytest.raises(ValueError, match=r"cells of shape \(n, 12\)"):
        across.push(emt[1])


@pytest.mark.parametrize("method", [ICNN(), MongeGap(), FlowMatching()], ids=lambda m: m.name)
def test_methods_that_do_not_cross_spaces_are_refused(quadratic, method):
    with pytest.raises(ValueError, match=rf"maps between spaces, .*found '{method.name}'\. Use `GENOT`"):
        uc.train.fit(method, quadratic, n_iters=1, progress=False)


def test_dimensions_come_from_both_sides():
    method = GENOT(hidden=(4,))
    params = method.init(jax.random.key(0), 5, PairSummary.standard(5, 3)).params
    assert method.push(params, jnp.ones((7, 5))).shape == (7, 3)
    assert method.variance(params, jnp.ones((7, 5))).shape == (7, 3)
    # Of velocity zero at first, it draws from the latent noise: mean zero and variance one per dimension.
    np.testing.assert_allclose(method.push(params, jnp.ones((7, 5))), 0, atol=1e-6)
    np.testing.assert_allclose(method.variance(params, jnp.ones((7, 5))), 1, rtol=1e-5)


@pytest.mark.parametrize("n_samples", [1, 0, 2.5, True])
def test_bad_options(n_samples):
    with pytest.raises(ValueError, match="`n_samples` to be an integer of at least 2"):
        GENOT(n_samples=n_samples)
