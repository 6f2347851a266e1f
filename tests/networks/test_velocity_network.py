"""The velocity network: at rest at first, residual where widths allow it, moved by time and condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from uotcell.networks import VelocityNetwork


def network(hidden=(8, 8), *, dim=3, condition_dim=0, seed=0):
    """Return a network whose last layer is not zero, so that its inputs show."""
    rngs = nnx.Rngs(params=seed)
    made = VelocityNetwork(dim, hidden, activation="tanh", condition_dim=condition_dim, rngs=rngs)
    made.out.kernel[...] = jax.random.normal(jax.random.key(1), made.out.kernel.shape)
    return made


def points(n=6, dim=3, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, dim))


@pytest.mark.parametrize("condition_dim", [0, 2])
def test_starts_at_rest_and_can_be_moved(condition_dim):
    made = VelocityNetwork(3, (8, 8), activation="silu", condition_dim=condition_dim, rngs=nnx.Rngs(params=0))
    condition = points(dim=2) if condition_dim else None
    np.testing.assert_array_equal(made(points(), 0.3, condition), np.zeros((6, 3)))
    gradient = nnx.grad(lambda net: ((net(points(), 0.3, condition) - 1) ** 2).sum())(made)
    assert float(np.abs(gradient["out"]["kernel"][...]).max()) > 0


def test_a_layer_adds_to_the_one_before_only_where_widths_are_equal():
    made = network((12, 8, 8))
    for layer in made.layers[1:]:  # tanh(0) = 0: what is left is what was added to
        layer.kernel[...], layer.bias[...] = jnp.zeros(layer.kernel.shape), jnp.zeros(layer.bias.shape)
    # 12 → 8 replaces what was there, and 8 → 8 keeps it.
    np.testing.assert_array_equal(made(points(), 0.5), np.broadcast_to(made.out.bias[...], (6, 3)))
    made = network((8, 8, 8))
    for layer in made.layers[1:]:
        layer.kernel[...], layer.bias[...] = jnp.zeros(layer.kernel.shape), jnp.zeros(layer.bias.shape)
    one_layer = network((8,))
    for name in ("kernel", "bias"):
        getattr(one_layer.layers[0], name)[...] = getattr(made.layers[0], name)[...]
        getattr(one_layer.out, name)[...] = getattr(made.out, name)[...]
    np.testing.assert_allclose(made(points(), 0.5), one_layer(points(), 0.5), atol=1e-6)


def test_the_input_is_never_added_by_accident():
    """Point, time and its sines are 12 numbers here: a first layer of width 12 adds to them, one of 8 cannot."""
    made = network((12,))
    made.layers[0].kernel[...], made.layers[0].bias[...] = jnp.zeros((12, 12)), jnp.zeros(12)
    assert np.abs(made(points(), 0.25)).max() > 0
    made = network((8,))
    made.layers[0].kernel[...], made.layers[0].bias[...] = jnp.zeros((12, 8)), jnp.zeros(8)
    np.testing.assert_array_equal(made(points(), 0.25), np.zeros((6, 3)))


def test_time_enters_with_sines_of_whole_turns():
    made, x = network(), points()
    early, late = made(x, 0.2), made(x, 0.7)
    assert np.abs(early - late).max() > 0.1
    # Only the time itself tells the two ends of the interval apart.
    for layer in made.layers[:1]:
        layer.kernel[...] = layer.kernel[...].at[3].set(0.0)
    np.testing.assert_allclose(made(x, 0.0), made(x, 1.0), atol=1e-5)
    assert np.abs(made(x, 0.2) - made(x, 0.7)).max() > 0.01


def test_one_time_for_all_or_one_each():
    made, x, times = network(), points(), jnp.linspace(0, 1, 6)
    each = made(x, times)
    assert each.shape == (6, 3)
    for row in range(6):
        np.testing.assert_allclose(each[row], made(x, times[row])[row], atol=1e-6)


def test_a_condition_moves_its_own_row_only():
    made, x, condition = network(condition_dim=2), points(), points(dim=2, seed=5)
    before = made(x, 0.5, condition)
    after = made(x, 0.5, condition.at[2].add(1.0))
    changed = np.abs(after - before).max(axis=1) > 1e-4
    np.testing.assert_array_equal(changed, np.arange(6) == 2)


def test_a_condition_scales_and_shifts_the_features():
    """FiLM with scale γ and shift β: features become (1 + γ) features + β."""
    made, x = network((8,), condition_dim=2), points()
    film = made.films[0]
    scale, shift = jnp.full(8, 0.5), jnp.full(8, -0.25)
    film.kernel[...], film.bias[...] = jnp.zeros(film.kernel.shape), jnp.concatenate([scale, shift])
    time = jnp.full((6, 1), 0.5)
    angles = 2 * jnp.pi * time * jnp.arange(1, 5)
    features = made.layers[0](jnp.concatenate([x, time, jnp.sin(angles), jnp.cos(angles)], axis=1))
    expected = made.out(jnp.tanh(1.5 * features - 0.25))
    np.testing.assert_allclose(made(x, 0.5, points(dim=2)), expected, atol=1e-5)


def test_a_condition_is_required():
    with pytest.raises(ValueError, match=r"Expected a condition, .* found none"):
        network(condition_dim=2)(points(), 0.5)
    with pytest.raises(ValueError, match=r"Expected no condition, .* found one"):
        network()(points(), 0.5, points(dim=2))
