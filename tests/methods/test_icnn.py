"""UOT-ICNN as a method: initial maps, updates, options."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uotcell.methods import ICNN, Batch, PairSummary
from uotcell.ot._gaussian import bures_map


def random_cov(rng, dim):
    root = rng.normal(size=(dim, dim))
    return root @ root.T / dim + 0.2 * np.eye(dim)


def batch_of(method, dim=3, n=32, seed=0):
    shape = (method.draws, n, dim)
    rng_x, rng_y = jax.random.split(jax.random.key(seed))
    return Batch(jax.random.normal(rng_x, shape), 1.0 + jax.random.normal(rng_y, shape))


def test_initial_maps():
    rng = np.random.default_rng(0)
    moments = PairSummary(
        rng.normal(size=3), random_cov(rng, 3), rng.normal(size=3), random_cov(rng, 3),
        effective_cells=(1e9, 1e9), prior_cells=(rng.normal(size=(5, 3)), rng.normal(size=(5, 3))),
        shift=np.zeros(3), scale=1.0,
    )  # fmt: skip
    x = jnp.asarray(rng.normal(size=(200, 3)), jnp.float32)
    identity = ICNN(initial_map="identity")
    pushed = identity.push(identity.init(jax.random.key(0), 3, moments).params, x)
    assert np.abs(pushed - x).max() < 0.2
    gaussian = ICNN()
    params = gaussian.init(jax.random.key(0), 3, moments).params
    linear = bures_map(moments.source_cov, moments.target_cov)
    expected = moments.target_mean + (x - moments.source_mean) @ linear
    assert np.abs(gaussian.push(params, x) - expected).max() < 0.2
    assert np.abs(gaussian.pull(params, gaussian.push(params, x)) - x).max() < 0.5


def test_push_is_the_gradient_of_the_potential_of_every_row():
    method = ICNN(hidden=(16, 16))
    params = method.init(jax.random.key(0), 3).params
    x = jax.random.normal(jax.random.key(1), (20, 3))
    one_by_one = jax.vmap(jax.grad(lambda point: method._potential(params["source"], point[None])[0]))(x)
    np.testing.assert_allclose(method.push(params, x), one_by_one, atol=1e-5)


def test_ways_between_a_cell_and_its_image_are_straight():
    method = ICNN(hidden=(8,))
    params = method.init(jax.random.key(0), 3).params
    x, y = (jax.random.normal(jax.random.key(seed), (16, 3)) for seed in (1, 2))
    forward, backward = method.push(params, x), method.pull(params, y)
    for t in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(method.interpolate(params, x, t), (1 - t) * x + t * forward, atol=1e-6)
        np.testing.assert_allclose(method.interpolate_back(params, y, t), (1 - t) * backward + t * y, atol=1e-6)


@pytest.mark.parametrize("draw", range(4))
def test_every_draw_of_the_source_is_used_by_its_own_step(draw):
    method = ICNN(hidden=(8,), n_inner=3)
    state, batch = method.init(jax.random.key(0), 3), batch_of(method)
    reference, _ = jax.jit(method.update)(state, batch, jax.random.key(0), 0.0)
    other = batch._replace(source=batch.source.at[draw].add(1.0))
    changed, _ = jax.jit(method.update)(state, other, jax.random.key(0), 0.0)

    def moved(side):
        # The first step of Adam only sees signs: look at the gradients it has averaged.
        pairs = zip(*(jax.tree.leaves(s.optimizer[side]) for s in (reference, changed)), strict=True)
        return any(not np.array_equal(one, other) for one, other in pairs)

    outer_only = draw == method.n_inner
    assert moved("source") is not outer_only
    assert moved("target")


def test_penalty_mode_clips_the_target_potential_and_penalises_the_source_potential():
    method = ICNN(hidden=(8, 8), positive_weights="penalty", learning_rate=0.3, decay="constant")
    free = ICNN(hidden=(8, 8), positive_weights="penalty", learning_rate=0.3, decay="constant", penalty=0.0)

    def negative_part(method):
        state = method.init(jax.random.key(0), 3)
        update = jax.jit(method.update)
        for seed in range(30):
            state, _ = update(state, batch_of(method, seed=seed), jax.random.key(seed), 0.0)
        leaves = [[*jax.tree.leaves(p["between"]), *jax.tree.leaves(p["out"])] for p in state.params.values()]
        return [float(sum(jnp.sum(jnp.maximum(-w, 0) ** 2) for w in side)) for side in leaves]

    (source, target), (source_free, _) = negative_part(method), negative_part(free)
    assert target == 0.0
    assert source < 0.5 * source_free


def test_optimizer_and_decay_are_used():
    batch = batch_of(ICNN())
    start = ICNN(hidden=(8,)).init(jax.random.key(0), 3)

    def step(progress=0.0, **kwargs):
        method = ICNN(hidden=(8,), **kwargs)
        state = start._replace(optimizer={side: method.init_optimizer(p) for side, p in start.params.items()})
        return np.asarray(method.update(state, batch, jax.random.key(0), progress)[0].params["source"]["linear"][...])

    initial = np.asarray(start.params["source"]["linear"][...])
    frozen = step(optimizer=optax.sgd(0.0))
    np.testing.assert_array_equal(frozen, initial)
    small, large = (np.abs(step(optimizer=optax.sgd(rate)) - initial).max() for rate in (1e-4, 1e-2))
    assert large > 20 * small > 0
    np.testing.assert_allclose(step(progress=1.0), initial, atol=1e-6)
    assert np.abs(step(progress=1.0, decay="constant") - initial).max() > 1e-4


def test_equal_settings_are_one_method():
    assert hash(ICNN(n_inner=3)) == hash(ICNN(n_inner=3))
    assert ICNN() != ICNN(n_inner=3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"activation": "tanh"}, "`activation` to be one of"),
        ({"positive_weights": "abs"}, "`positive_weights` to be one of"),
        ({"initial_map": "zero"}, "`initial_map` to be one of"),
        ({"hidden": ()}, "positive `hidden`"),
        ({"n_inner": 0}, "positive `hidden` and `n_inner`"),
        ({"decay": "linear"}, "`decay` to be"),
        ({"learning_rate": 0.0}, "`learning_rate` to be positive"),
    ],
)
def test_bad_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ICNN(**kwargs)


def test_unknown_options_raise():
    with pytest.raises(TypeError, match="n_steps"):
        ICNN(n_steps=3)
