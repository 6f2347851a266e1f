"""Networks of mass multipliers: against the closed form, and as part of a saved map."""

from dataclasses import replace

import numpy as np
import pytest
from gaussian_oracle import make_oracle

import uotcell as uc
from uotcell.methods import MongeGap, TransportMap

SHORT = {"n_iters": 60, "hidden": (8,), "batch_size": 64}
BAD_ARGUMENTS = [
    ({"n_iters": 0}, "`n_iters` to be at least 1, found 0"),
    ({"n_iters": 2.5}, "`n_iters` to be at least 1, found 2.5"),
    ({"batch_size": True}, "`batch_size` to be at least 1, found True"),
    ({"hidden": ()}, "`hidden` to be at least 1"),
    ({"hidden": (8, 0)}, "`hidden` to be at least 1"),
    ({"learning_rate": 0.0}, "positive `learning_rate`"),
    ({"mass_weight": -1.0}, "non-negative `mass_weight`"),
    ({"jitter": -0.1}, "non-negative `mass_weight` and `jitter`"),
    ({"jitter": float("nan")}, "non-negative `mass_weight` and `jitter`"),
]


def log_normal(x, mean, var):
    return -0.5 * ((x - mean) ** 2 / var + np.log(2 * np.pi * var)).sum(axis=1)


@pytest.fixture(scope="module")
def oracle():
    return make_oracle(2, 12.0)


@pytest.fixture(scope="module")
def coupling(oracle):
    x, y = oracle.sample(2000, seed=1)
    return uc.ot.solve_unbalanced(x, y, marginal_penalty=oracle.penalty / oracle.mean_cost)


@pytest.fixture(scope="module")
def networks(coupling):
    return uc.train.fit_rescaling(coupling)


def sides(oracle, seed=5, n=2000):
    """Per side: fresh cells of the prior, and how much denser the rescaled measure of mass one is there."""
    rng = np.random.default_rng(seed)
    for side in ("source", "target"):
        mean, var = getattr(oracle, f"{side}_mean"), getattr(oracle, f"{side}_var")
        cells = mean + rng.normal(size=(n, 2)) * np.sqrt(var)
        ratio = np.exp(log_normal(cells, *getattr(oracle, f"rescaled_{side}")) - log_normal(cells, mean, var))
        yield side, cells, ratio


def test_learns_the_closed_form_on_fresh_cells(oracle, coupling, networks):
    for side, cells, ratio in sides(oracle):
        found = getattr(networks, f"{side}_rescaling")(cells)
        assert found.shape == (2000,)
        assert found.dtype == np.float32
        assert np.corrcoef(found, ratio)[0, 1] > 0.98
        # The mean of the ratio over these very cells is the mass they should carry in units of all of it.
        assert found.mean() == pytest.approx(coupling.transported_mass * ratio.mean(), rel=0.02)


def test_is_positive_everywhere(networks):
    cells = np.random.default_rng(0).uniform(-50, 50, size=(5000, 2))
    for rescaling in (networks.source_rescaling, networks.target_rescaling):
        assert rescaling(cells).min() > 0


def test_does_not_mind_where_the_origin_is(coupling, oracle, networks):
    x, y = oracle.sample(2000, seed=1)
    far = uc.ot.solve_unbalanced(x + 500, y + 500, marginal_penalty=oracle.penalty / oracle.mean_cost)
    moved = uc.train.fit_rescaling(far)
    np.testing.assert_allclose(moved.source_rescaling(x + 500), networks.source_rescaling(x), rtol=0.05, atol=0.01)


def test_a_matched_mass_is_nearer_than_regression_alone(oracle, coupling):
    """Too few steps for the regression: the mass is what a network that knows little can still get right."""
    x = np.asarray(coupling.x) + coupling.shift
    error = {}
    for weight in (0.0, 1.0, 100.0):
        fitted = [uc.train.fit_rescaling(coupling, mass_weight=weight, rng=seed, **SHORT) for seed in range(4)]
        masses = np.array([networks.source_rescaling(x).mean() for networks in fitted])
        error[weight] = np.abs(masses / coupling.transported_mass - 1).mean()
    assert error[1.0] <= error[0.0]
    assert error[100.0] < 0.5 * error[0.0]


def test_the_same_seed_gives_the_same_bits(coupling):
    x = np.asarray(coupling.x)
    first, again, other = (
        uc.train.fit_rescaling(coupling, rng=seed, **SHORT).target_rescaling(x) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_balanced_coupling_keeps_every_cell():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 3)), rng.normal(size=(80, 3)) + 1
    networks = uc.train.fit_rescaling(uc.ot.solve_unbalanced(x, y), n_iters=200, hidden=(8,))
    np.testing.assert_allclose(networks.source_rescaling(x), 1.0, atol=1e-2)
    np.testing.assert_allclose(networks.target_rescaling(y), 1.0, atol=1e-2)


def test_multipliers_are_relative_to_the_prior():
    """Doubling all prior masses changes no multiplier; tripling those of half the cells is not learned as growth."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 1
    prior = np.where(x[:, 0] > 0, 3.0, 1.0)
    coupling = uc.ot.solve_unbalanced(x, y, a=prior, b=np.full(300, prior.mean()), tau=0.95)
    networks = uc.train.fit_rescaling(coupling)
    found, expected = networks.source_rescaling(x), coupling.source_rescaling(x)
    assert np.corrcoef(found, expected)[0, 1] > 0.95
    assert prior @ found == pytest.approx(coupling.transported_mass, rel=0.02)


def test_across_spaces_each_side_has_its_own_features():
    rng = np.random.default_rng(0)
    y = rng.gamma(1.0, size=(120, 3))
    x = np.concatenate([y, np.zeros((120, 1))], axis=1) + 7
    coupling = uc.ot.solve_quadratic(x, y, tau=0.9, epsilon=0.05)
    networks = uc.train.fit_rescaling(coupling, n_iters=1_000)
    for cells, rescaling, expected in (
        (x, networks.source_rescaling, coupling.source_rescaling(x)),
        (y, networks.target_rescaling, coupling.target_rescaling(y)),
    ):
        assert np.corrcoef(rescaling(cells), expected)[0, 1] > 0.95
        with pytest.raises(ValueError, match="dimensions"):
            rescaling(cells[:, :2])


def test_cells_of_another_shape_are_refused_by_name(networks):
    for rescaling, name in ((networks.source_rescaling, "x"), (networks.target_rescaling, "y")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            rescaling(np.zeros((4, 9)))


def test_travels_with_a_map(coupling, networks, tmp_path):
    method = MongeGap(hidden=(8,))
    fitted, _ = uc.train.fit(method, coupling, n_iters=2, batch_size=16, progress=False)
    assert fitted.rescaling is None
    fitted.with_rescaling(networks).save(tmp_path / "map")
    loaded = TransportMap.load(tmp_path / "map").rescaling
    cells = np.random.default_rng(3).normal(size=(50, 2))
    np.testing.assert_array_equal(loaded.source_rescaling(cells), networks.source_rescaling(cells))
    np.testing.assert_array_equal(loaded.target_rescaling(cells), networks.target_rescaling(cells))


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments(coupling, arguments, message):
    with pytest.raises(ValueError, match=message):
        uc.train.fit_rescaling(coupling, **arguments)


def test_training_that_is_not_finite_is_refused(coupling):
    with pytest.raises(uc.ConvergenceError, match=r"source rescaling network, found loss=nan at step 1\. Lower"):
        uc.train.fit_rescaling(replace(coupling, f=coupling.f * np.nan, g=coupling.g * np.nan), **SHORT)
