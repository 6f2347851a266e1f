"""Plans inside a training loss, against ott and exact assignment."""

import jax
import jax.numpy as jnp
import numpy as np
import ot
import pytest

from uotcell.ot._batch import batch_plan, batch_transport_cost


def costs(n=60, m=80, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 1
    return x, y, jnp.asarray(((x[:, None] - y) ** 2).sum(-1), jnp.float32)


@pytest.mark.parametrize("relative", [0.02, 0.05, 0.5])
def test_plan_and_value_agree_with_pot(relative):
    _, _, cost = costs()
    epsilon = relative * float(cost.mean())
    solved = batch_plan(cost, epsilon, threshold=1e-5, max_sweeps=5_000)
    a, b = np.full(60, 1 / 60), np.full(80, 1 / 80)
    expected = ot.sinkhorn(
        a, b, np.asarray(cost, float), epsilon, method="sinkhorn_log", stopThr=1e-10, numItermax=20_000
    )
    np.testing.assert_allclose(solved.plan, expected, atol=2e-6)
    kl = (expected * np.log(expected / (a[:, None] * b) + 1e-300)).sum()
    assert float(solved.value) == pytest.approx((expected * np.asarray(cost)).sum() + epsilon * kl, rel=1e-4)
    assert float(solved.error) <= 1e-5


def test_far_cells_and_small_epsilon_stay_finite():
    x, y, _ = costs()
    y[:3] += 100
    cost = jnp.asarray(((x[:, None] - y) ** 2).sum(-1), jnp.float32)
    solved = batch_plan(cost, 0.05 * float(jnp.median(cost)), max_sweeps=5_000)
    assert np.isfinite(solved.plan).all()
    assert float(solved.error) <= 1e-2
    np.testing.assert_allclose(solved.plan.sum(0), 1 / 80, rtol=1e-3)


def test_gradient_is_that_of_the_envelope_theorem():
    x, y, _ = costs(20, 20)
    y = jnp.asarray(y, jnp.float32)

    def value(points):
        cost = ((points[:, None] - y) ** 2).sum(-1)
        return batch_transport_cost(cost, 0.5, threshold=1e-6, max_sweeps=5_000)[0]

    points = jnp.asarray(x, jnp.float32)
    direction = jax.random.normal(jax.random.key(0), points.shape)
    step = 1e-2
    numeric = (value(points + step * direction) - value(points - step * direction)) / (2 * step)
    assert float((jax.grad(value)(points) * direction).sum()) == pytest.approx(float(numeric), rel=2e-3)


def test_an_unreached_threshold_shows_in_the_error():
    *_, cost = costs()
    assert float(batch_plan(cost, 0.001 * float(cost.mean()), threshold=1e-6, max_sweeps=20).error) > 1e-3
    assert not np.isfinite(batch_plan(cost * jnp.nan, 1.0).error)
