"""The training engine: what it reaches, what it repeats, and what it refuses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussian_oracle import make_oracle

import uotcell as uc
from uotcell.methods import ICNN, FlowMatching, _transport_map
from uotcell.train import _data, _device, _program
from uotcell.train._data import BatchProblem, couple_batch, draw_global, held_out, split_rows, training_data
from uotcell.train._pairs import stack

SMALL = {"n_iters": 40, "batch_size": 64, "progress": False}


@pytest.fixture(scope="module")
def coupling():
    rng = np.random.default_rng(0)
    return uc.ot.solve_unbalanced(rng.normal(size=(200, 3)), rng.normal(size=(150, 3)) + 1, tau=0.95)


@pytest.fixture
def method():
    return ICNN(hidden=(16, 16), n_inner=2)


@pytest.mark.parametrize(("dim", "bound"), [(2, 2.0), (8, 5.0), (32, 10.0)])
def test_reaches_the_closed_form_from_the_identity(dim, bound):
    oracle = make_oracle(dim, 12.0)
    x, y = oracle.sample(4000, seed=1)
    coupling = uc.ot.solve_unbalanced(x, y, marginal_penalty=oracle.penalty / oracle.mean_cost)
    method = ICNN(initial_map="identity")
    fitted, history = uc.train.fit(method, coupling, n_iters=200, progress=False)
    assert oracle.l2_uvp(fitted.push) <= bound
    assert min(history.valid_divergence) < history.baseline["identity"]
    mean, var = oracle.rescaled_source
    x = mean + np.random.default_rng(3).normal(size=(1000, dim)) * np.sqrt(var)
    assert ((fitted.pull(fitted.push(x)) - x) ** 2).sum(1).mean() <= 0.1 * var.sum()


def test_a_second_fit_of_equal_shapes_compiles_nothing(coupling, method):
    programs = _program.train_chunk, _program.push_pairs, _program.valid_divergence, _transport_map._apply
    first, _ = uc.train.fit(method, coupling, **SMALL)
    first.push(np.asarray(coupling.x))
    rng = np.random.default_rng(5)
    # Another pair of similar size, other data, other ε and τ, another seed and number of steps.
    other = uc.ot.solve_unbalanced(rng.normal(size=(190, 3)), rng.normal(size=(146, 3)), tau=0.99, epsilon=0.02)
    before = [program._cache_size() for program in programs]
    equal = replace(method)
    second, _ = uc.train.fit(equal, other, rng=3, log_every=2, **{**SMALL, "n_iters": 38})
    second.push(np.asarray(other.x))
    assert equal is not method
    assert [program._cache_size() for program in programs] == before


def test_stops_early_and_returns_the_best_parameters(coupling):
    # An absurd step size makes things worse at once.
    wild = ICNN(hidden=(8,), n_inner=1, learning_rate=0.5, decay="constant")
    fitted, history = uc.train.fit(wild, coupling, n_iters=400, batch_size=64, log_every=10, patience=3, progress=False)
    assert history.stopped_early
    assert history.iteration[-1] < 400
    assert history.best_iteration == history.iteration[int(np.nanargmin(history.valid_divergence))]
    assert history.iteration[-1] == history.best_iteration + 30
    rng_rows, rng_columns, _, _ = jax.random.split(jax.random.key(0), 4)
    rows, valid_rows = split_rows(rng_rows, 200, 0.1)
    columns, valid_columns = split_rows(rng_columns, 150, 0.1)
    data, *_ = training_data(coupling, rows, columns, rescaling="global")
    points = np.asarray(coupling.x)[valid_rows], np.asarray(coupling.y)[valid_columns]
    weights = np.asarray(coupling.source_weights)[valid_rows], np.asarray(coupling.target_weights)[valid_columns]
    valid = held_out(points, weights, data, (32, 16))
    one_pair = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (fitted.params, valid, history.valid_epsilon))
    params, valid, epsilon = one_pair
    image = _program.push_pairs(wild, params, valid.x)
    value, _ = _program.valid_divergence(image, valid, epsilon / fitted.scale**2)
    assert float(value[0]) * fitted.scale**2 == pytest.approx(min(history.valid_divergence), rel=1e-4)


def test_validation_uses_cells_that_training_never_draws(coupling):
    rows, held = split_rows(jax.random.key(0), 200, 0.2)
    assert len(held) == 40
    np.testing.assert_array_equal(np.sort(np.concatenate([rows, held])), np.arange(200))
    data, *_ = training_data(coupling, rows, np.arange(150), rescaling="global")
    batch = draw_global(jax.random.key(1), data, (4, 5000))
    drawn = np.unique(
        np.asarray(batch.source).reshape(-1, 3) * float(data.frame.scale) + np.asarray(data.frame.shift), axis=0
    )
    held_cells = np.asarray(coupling.x)[held]
    distance = np.abs(drawn[:, None] - held_cells).max(-1).min()
    assert distance > 1e-4
    assert len(drawn) > 150  # the lightest cells may not come up


def test_validation_metric_depends_on_the_cells_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 1
    expected = 0.3 * ((x[:, None] - y) ** 2).sum(axis=-1).mean()
    for problem in ({"tau": 1.0}, {"tau": 0.9}, {"scale_cost": 1.0, "epsilon": 0.1}, {"cost": "cosine"}):
        _, history = uc.train.fit(ICNN(hidden=(8,)), uc.ot.solve_unbalanced(x, y, **problem), **SMALL)
        assert history.valid_epsilon == pytest.approx(expected, rel=1e-4)


def test_batches_follow_the_rescaled_measures(coupling):
    everything = np.arange(200), np.arange(150)
    data, moments, _ = training_data(coupling, *everything, rescaling="global")
    batch = draw_global(jax.random.key(0), data, (1, 200_000))
    for cells, mean, cov in (
        (batch.source, moments.source_mean, moments.source_cov),
        (batch.target, moments.target_mean, moments.target_cov),
    ):
        np.testing.assert_allclose(cells[0].mean(0), mean, atol=0.01)
        np.testing.assert_allclose(np.cov(cells[0].T), cov, atol=0.02)


def test_minibatch_rescaling_is_global_rescaling_in_the_limit_of_the_full_batch(coupling):
    problem = BatchProblem.of(coupling)._replace(mass=(1.0, 1.0))
    solution = couple_batch(coupling.x, coupling.y, problem)
    np.testing.assert_allclose(solution.source_weights, coupling.source_weights, rtol=2e-3)
    np.testing.assert_allclose(solution.target_weights, coupling.target_weights, rtol=2e-3)
    assert solution.marginal_error <= 1e-3
    rows = jax.nn.softmax(solution.log_rows(jnp.arange(200)), axis=1)
    np.testing.assert_allclose(
        rows @ coupling.y + coupling.shift, coupling.push(coupling.x + coupling.shift), atol=0.02
    )


def test_batches_of_many_pairs_keep_their_own_tau(coupling):
    problems = [BatchProblem.of(replace(coupling, tau=tau)) for tau in ((0.9, 0.9), (0.99, 0.8))]
    together = jax.vmap(lambda problem: couple_batch(coupling.x, coupling.y, problem).source_weights)(stack(problems))
    for found, problem in zip(together, problems, strict=True):
        np.testing.assert_allclose(found, couple_batch(coupling.x, coupling.y, problem).source_weights, rtol=1e-5)
    assert np.abs(together[0] / together[1] - 1).max() > 0.1


def test_minibatch_rescaling_approaches_the_rescaled_measures(coupling):
    everything = np.arange(200), np.arange(150)
    data, *_ = training_data(coupling, *everything, rescaling="minibatch")
    reference, moments, _ = training_data(coupling, *everything, rescaling="global")
    np.testing.assert_allclose(data.frame.shift, reference.frame.shift)
    errors = []
    for batch_size in (16, 512):
        batch, error = _program.draw_minibatch(
            jax.random.key(0),
            data,
            (24_576 // batch_size, batch_size),
            BatchProblem.of(coupling),
            "marginals",
        )
        assert float(error) <= 1e-3
        errors.append(np.abs(batch.source.reshape(-1, 3).mean(0) - moments.source_mean).max())
    assert errors[1] < 0.03
    assert errors[1] < errors[0]


def test_unconverged_batches_are_pointed_out(coupling, method, monkeypatch):
    monkeypatch.setattr(_data, "BATCH_SWEEPS", 1)
    with pytest.warns(UserWarning, match="batch's coupling was .* from its optimality condition"):
        uc.train.fit(method, coupling, rescaling="minibatch", **{**SMALL, "batch_size": 65, "n_iters": 2})


def test_average_is_corrected_for_its_start(coupling, method):
    settings = _program.Settings(method, 64, 5, "global", 0.9, 0.0)
    data, moments, _ = training_data(coupling, np.arange(200), np.arange(150), rescaling="global")
    state = method.init(jax.random.key(0), 3, moments)
    run = _program.PairRun(jax.random.key(1), data, BatchProblem.of(coupling))
    # One pair: a leading axis of length one.
    state, run = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (state, run))
    carry = _program.Carry(state, jax.tree.map(jnp.zeros_like, state.params))
    one_step = _program.Settings(method, 64, 1, "global", 0.9, 0.0)
    expected, weights, single = 0.0, 0.0, carry
    for step in range(5):
        single, *_ = _program.train_chunk(one_step, single, step, 5, run)
        weight = 0.1 * 0.9 ** (4 - step)
        expected += weight * np.asarray(single.state.params["source"]["linear"][...])[0]
        weights += weight
    carry, *_ = _program.train_chunk(settings, carry, 0, 5, run)
    found = _program.averaged(settings, carry, np.array([5]), 5)["source"]["linear"][0]
    np.testing.assert_allclose(found, expected / weights, atol=1e-5)


def test_source_noise_widens_the_source_only(coupling):
    seen = {}

    class Spy(ICNN):
        def update(self, state, batch, rng, progress):
            spread = {"loss": batch.source.std(), "target": batch.target.std()}
            return state, spread

    for noise in (0.0, 2.0):
        _, history = uc.train.fit(Spy(), coupling, source_noise=noise, **SMALL)
        seen[noise] = history.losses["loss"][-1], history.losses["target"][-1]
    assert seen[2.0][0] == pytest.approx(np.sqrt(seen[0.0][0] ** 2 + 4), rel=0.05)
    assert seen[2.0][1] == pytest.approx(seen[0.0][1], rel=0.05)


def test_a_map_works_in_chunks_and_on_new_cells(coupling, method):
    fitted, _ = uc.train.fit(method, coupling, **SMALL)
    cells = np.random.default_rng(9).normal(size=(501, 3))
    whole = fitted.push(cells)
    assert whole.dtype == np.float32
    for batch_size in (1000, 100, 7):
        np.testing.assert_allclose(fitted.push(cells, batch_size=batch_size), whole, atol=1e-5)
    np.testing.assert_allclose(fitted.interpolate(cells, 0.0), cells, atol=1e-6)
    np.testing.assert_allclose(fitted.interpolate(cells, 1.0), whole, atol=1e-6)
    np.testing.assert_allclose(fitted.velocity(cells), whole - cells, atol=1e-5)
    for t in (0.5, 1.0):
        on_the_way = fitted.interpolate(cells, t)
        np.testing.assert_allclose(fitted.velocity(on_the_way, t), whole - cells, atol=5e-3)
    assert fitted.push(cells[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"cells of shape \(n, 3\)"):
        fitted.push(cells[:, :2])
    with pytest.raises(ValueError, match="`t` to be in"):
        fitted.interpolate(cells, 1.5)
    with pytest.raises(ValueError, match="`batch_size` to be at least 1"):
        fitted.push(cells, batch_size=0)


def test_non_finite_training_stops_loudly(coupling):
    broken = ICNN(hidden=(8,), n_inner=1, optimizer=optax.scale(jnp.nan))
    with pytest.raises(uc.ConvergenceError, match=r"finite losses, found .*nan"):
        uc.train.fit(broken, coupling, **SMALL)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rescaling": "batch"}, "`rescaling` to be 'global' or 'minibatch'"),
        ({"valid_fraction": 1.0}, r"`valid_fraction` to be in \[0, 1\)"),
        ({"ema_decay": 1.0}, r"`ema_decay` to be in \[0, 1\)"),
        ({"n_iters": 0}, "`n_iters` to be an integer of at least 1"),
        ({"batch_size": -1}, "`batch_size` to be an integer of at least 1"),
        ({"n_iters": 2.5}, "`n_iters` to be an integer"),
        ({"valid_fraction": 0.999}, "at least one cell a side to train on"),
        ({"log_every": 0}, "`log_every` to be an integer of at least 1"),
        ({"patience": 2, "valid_fraction": 0.0}, "nothing to be patient about"),
        ({"source_noise": -0.1}, "`source_noise` to be a non-negative number"),
    ],
)
def test_bad_arguments(coupling, method, kwargs, message):
    with pytest.raises(ValueError, match=message):
        uc.train.fit(method, coupling, **{**SMALL, **kwargs})


def test_a_method_can_be_named(coupling):
    fitted, _ = uc.train.fit("flow_matching", coupling, **{**SMALL, "n_iters": 2})
    assert fitted.method == FlowMatching()
    with pytest.raises(ValueError, match=r"`method` to be one of \['flow_matching', 'genot', 'icnn', .*'nn'"):
        uc.train.fit("nn", coupling, **SMALL)


def test_a_split_that_holds_out_nobody_is_refused(method):
    x = np.random.default_rng(0).normal(size=(4, 2))
    coupling = uc.ot.solve_unbalanced(x, x + 1)
    with pytest.raises(ValueError, match=r"hold out at least one cell a side, found 0\.1 of 4 and 4 cells"):
        uc.train.fit(method, coupling, **SMALL)
    fitted, _ = uc.train.fit(method, coupling, valid_fraction=0.0, **SMALL)
    assert np.isfinite(fitted.push(x)).all()


def test_progress_shows_loss_held_out_and_device(coupling, method, capsys):
    uc.train.fit(method, coupling, **{**SMALL, "progress": True})
    shown = capsys.readouterr().err
    assert "icnn [cpu]" in shown
    assert "loss=" in shown
    assert "held-out=" in shown
    assert "step/s" in shown or "s/step" in shown


def test_an_unused_gpu_is_pointed_out(coupling, method, monkeypatch, tmp_path):
    driver = tmp_path / "version"
    driver.touch()
    monkeypatch.setattr(_device, "GPU_DRIVER_FILES", (str(driver),))
    with pytest.warns(UserWarning, match="GPU driver is present .* computes on the CPU"):
        uc.train.fit(method, coupling, **SMALL)
    monkeypatch.setattr(_device, "GPU_DRIVER_FILES", (str(tmp_path / "none"),))
    uc.train.fit(method, coupling, **SMALL)
