"""UOT-Monge-gap as a method: losses, costs, units, options."""

import jax
import jax.numpy as jnp
import numpy as np
import ott.geometry.costs as ott_costs
import pytest
from gaussian_oracle import make_oracle
from ott.geometry.regularizers import L1
from ott.neural.methods.monge_gap import monge_gap_from_samples
from ott.tools.sinkhorn_divergence import sinkdiv

import uotcell as uc
from uotcell.methods import Batch, MongeGap
from uotcell.train._data import training_data

ELASTIC = ott_costs.RegTICost(L1(), lam=0.1)


def cells(n=64, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(n, dim)), jnp.float32), jnp.asarray(rng.normal(size=(n, dim)) + 1, jnp.float32)


def units_of(method, dim=3):
    return method.init(jax.random.key(0), dim).units


def test_reaches_the_closed_form_in_eight_dimensions():
    oracle = make_oracle(8, 12.0)
    x, y = oracle.sample(2000, seed=1)
    coupling = uc.ot.solve_unbalanced(x, y, marginal_penalty=oracle.penalty / oracle.mean_cost, epsilon=0.01)
    fitted, _ = uc.train.fit(MongeGap(), coupling, n_iters=1_000, progress=False)
    assert oracle.l2_uvp(fitted.push) <= 10.0


def test_the_gap_is_that_of_ott_up_to_its_entropy_convention():
    method = MongeGap(gap_epsilon=0.1)
    x, image = cells()
    gap, error = method._gap(x, image, units_of(method))
    expected = monge_gap_from_samples(x, image, epsilon=0.1, threshold=1e-4)
    # ott regularises by the plain entropy, which differs by a constant.
    assert float(gap) == pytest.approx(float(expected) - 0.1 * np.log(64), rel=0.01)
    assert float(error) <= 1e-2


def test_the_fitting_loss_is_the_sinkhorn_divergence_of_ott():
    method = MongeGap(fit_epsilon=0.1)
    x, y = cells()
    units = units_of(method)
    fit, _ = method._fit(x, y, units)
    expected, _ = sinkdiv(x, y, epsilon=0.1 * float(units.distance), solve_kwargs={"threshold": 1e-4})
    assert float(fit) == pytest.approx(float(expected) / float(units.distance), rel=0.02)


@pytest.mark.parametrize("fit", ["sinkhorn", "mmd"])
def test_fitting_losses_vanish_at_the_target_and_nowhere_else(fit):
    method = MongeGap(fit=fit)
    x, y = cells()
    units = units_of(method)
    assert float(method._fit(y, y, units)[0]) == pytest.approx(0.0, abs=1e-3)
    assert float(method._fit(x, y, units)[0]) > 0.02


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", ott_costs.PNormP(1.5), ELASTIC])
def test_gap_and_gradient_are_finite_where_cells_meet_their_images(cost):
    method = MongeGap(cost=cost)
    x, _ = cells()
    x = jnp.concatenate([x, x[:4]])  # a cell drawn twice
    summary_units = units_of(method)
    gap, gradient = jax.value_and_grad(lambda image: method._gap(x, image, summary_units)[0])(x)
    assert -1e-3 <= float(gap) < 0.3
    assert np.isfinite(gradient).all()


class Quartic(ott_costs.CostFn):
    """A cost of the user's own."""

    def __call__(self, x, y):
        return jnp.sum((x - y) ** 4)


@pytest.mark.parametrize("cost", [ELASTIC, Quartic()])
def test_any_cost_trains(cost):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 2
    coupling = uc.ot.solve_unbalanced(x, y)
    fitted, history = uc.train.fit(
        MongeGap(cost=cost, hidden=(16,), learning_rate=1e-2), coupling, n_iters=60, batch_size=32, progress=False
    )
    assert min(history.valid_divergence) < 0.5 * history.baseline["identity"]
    assert np.isfinite(fitted.push(x)).all()


class Steps(ott_costs.CostFn):
    """Counts differing whole numbers: constant almost everywhere."""

    def __call__(self, x, y):
        return jnp.sum(jnp.floor(jnp.abs(x - y)))


class NumPy(ott_costs.CostFn):
    """Leaves jax, so that nothing can be differentiated."""

    def __call__(self, x, y):
        return float(np.sum(np.abs(np.asarray(x) - np.asarray(y))))


@pytest.mark.parametrize(
    ("cost", "found"), [(Steps(), "Steps, whose gradient is zero"), (NumPy(), "NumPy, whose gradient failed")]
)
def test_a_cost_that_cannot_be_differentiated_is_refused(cost, found):
    x, y = cells()
    coupling = uc.ot.solve_unbalanced(x, y)
    with pytest.raises(ValueError, match=f"`cost` to be differentiable .*found {found}"):
        uc.train.fit(MongeGap(cost=cost), coupling, n_iters=2, batch_size=8, progress=False)


def test_units_do_not_depend_on_tau():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) * 2 + 1
    found = []
    for tau in (1.0, 0.9):
        coupling = uc.ot.solve_unbalanced(x, y, tau=tau)
        _, summary, _ = training_data(coupling, np.arange(200), np.arange(200), rescaling="global")
        units = MongeGap(cost=ott_costs.PNormP(1.5)).init(jax.random.key(0), 2, summary).units
        found.append((float(units.distance) * summary.scale**2, float(units.cost)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    np.testing.assert_allclose(found[0][0], ((x[:, None] - y) ** 2).sum(-1).mean(), rtol=1e-3)


def test_the_weight_of_the_gap_can_follow_a_schedule():
    x, y = cells()
    batch = Batch(x[None], y[None])
    fixed, scheduled = (
        MongeGap(gap_weight=0.5, hidden=(8,)),
        MongeGap(gap_weight=lambda progress: progress, hidden=(8,)),
    )
    states = [method.init(jax.random.key(0), 3) for method in (fixed, scheduled)]
    key = jax.random.key(1)
    expected, found = (m.update(s, batch, key, 0.5)[1] for m, s in zip((fixed, scheduled), states, strict=True))
    assert float(expected["loss"]) == pytest.approx(float(found["loss"]), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(found["fit"] + 0.5 * found["gap"]), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "kl"}, r"`fit` to be one of \['sinkhorn', 'mmd'\], found 'kl'"),
        ({"activation": "step"}, "`activation` to be one of"),
        ({"cost": "hamming"}, "`cost` to be one of"),
        ({"fit_epsilon": 0.0}, "`fit_epsilon` to be positive, found 0.0"),
        ({"gap_weight": -1.0}, "non-negative"),
        ({"hidden": ()}, "positive `hidden`"),
        ({"learning_rate": 0.0}, "`learning_rate` to be positive"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MongeGap(**options)


def test_no_inverse_is_learned():
    x, y = cells()
    fitted, _ = uc.train.fit(
        MongeGap(hidden=(8,)), uc.ot.solve_unbalanced(x, y), n_iters=2, batch_size=8, progress=False
    )
    with pytest.raises(TypeError, match="learns no inverse map"):
        fitted.pull(y)
