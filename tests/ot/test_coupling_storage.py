"""Couplings as settings and arrays: of any kind, they come back with their bits, and others are refused."""

import json
from dataclasses import replace

import numpy as np
import ott.geometry.costs as ott_costs
import pytest
from ott.geometry.regularizers import L1

import uotcell as uc
from uotcell._disk import Decoder, Encoder
from uotcell.ot._geometry import UnridgedCosine
from uotcell.ot._storage import COSTS, decode_cost, decode_coupling, encode_cost, encode_coupling

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)) + 5, RNG.normal(size=(36, 3)).astype(np.float32) + 6
LINEAR = {
    "plain": {"tau": 0.95},
    "anchors and masses": {"tau": (0.9, 1.0), "anchors": 30, "a": RNG.random(40), "b": RNG.random(36)},
    "cosine": {"cost": "cosine", "marginal_penalty": 2.0},
    "p-norm": {"cost": ott_costs.PNormP(1.5), "tau": 0.95},
    "geodesic": {"cost": uc.ot.Geodesic(n_neighbors=8, power=1.5), "tau": 0.95},
}
QUADRATIC = {
    "quadratic": {"anchors": 30},
    "fused": {"x_shared": X[:, :1], "y_shared": Y[:, :1], "cost": ("geodesic", "euclidean")},
}
FIELDS = ("x", "y", "a", "b", "f", "g", "source_weights", "target_weights", "shift", "target_shift")
NUMBERS = ("epsilon", "tau", "scale", "converged", "n_iters", "marginal_error", "same_space", "effective_sample_size")


def there_and_back(coupling, x, y):
    settings, arrays = encode_coupling(coupling)
    encoder = Encoder()
    text = json.dumps(encoder.encode(settings, "coupling"), allow_nan=False)
    return decode_coupling(Decoder(encoder.arrays).decode(json.loads(text)), arrays, x, y)


def check_same(found, coupling, x, y):
    assert type(found) is type(coupling)
    for name in FIELDS:
        ours, theirs = np.asarray(getattr(found, name)), np.asarray(getattr(coupling, name))
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    for name in NUMBERS:
        assert getattr(found, name) == getattr(coupling, name)
    for call in (
        lambda c: c.source_rescaling(x + 0.1), lambda c: c.target_rescaling(y + 0.1), lambda c: c.push(x + 0.1),
        lambda c: c.pull(y + 0.1), lambda c: c.sample_pairs(0, 30), lambda c: c.sample_marginals(1, 30),
        lambda c: c.sample_partners(2, np.arange(5), np.arange(20), 4),
    ):  # fmt: skip
        np.testing.assert_array_equal(call(found), call(coupling))


@pytest.mark.parametrize("name", LINEAR)
def test_couplings_within_a_space(name):
    coupling = uc.ot.solve_unbalanced(X, Y, **LINEAR[name])
    check_same(there_and_back(coupling, X, Y), coupling, X, Y)


@pytest.mark.parametrize("name", QUADRATIC)
def test_couplings_across_spaces(name):
    coupling = uc.ot.solve_quadratic(X, Y[:, :2], tau=0.95, n_starts=1, **QUADRATIC[name])
    shared = "x_shared" in QUADRATIC[name]
    x = np.concatenate([X, X[:, :1]], axis=1) if shared else X
    y = np.concatenate([Y[:, :2], Y[:, :1]], axis=1) if shared else Y[:, :2]
    found = there_and_back(coupling, x, y)
    check_same(found, coupling, x, y)
    for field in ("fused_weight", "n_shared", "objective", "plan_change", "n_outer"):
        assert getattr(found, field) == getattr(coupling, field)


def test_costs_come_back_with_their_settings():
    given = [
        ott_costs.SqEuclidean(), ott_costs.Euclidean(), ott_costs.NegDotProduct(), ott_costs.Cosine(ridge=0.5),
        UnridgedCosine(),
        ott_costs.Arccos(1, ridge=0.25), ott_costs.PNormP(1.5), ott_costs.SqPNorm(1.5),
    ]  # fmt: skip
    assert {type(cost).__name__ for cost in given} == set(COSTS)
    x, y = np.abs(X[0]), np.abs(Y[0])
    for cost in given:
        found = decode_cost(json.loads(json.dumps(encode_cost(cost))))
        assert type(found) is type(cost)
        assert float(found(x, y)) == float(cost(x, y))
    assert decode_cost(encode_cost(uc.ot.Geodesic(7, 1.0))) == uc.ot.Geodesic(7, 1.0)


class SqEuclidean(ott_costs.SqEuclidean):
    """Somebody's own, with the name of ott's."""


@pytest.mark.parametrize(
    "cost",
    [SqEuclidean(), ott_costs.RegTICost(L1()), ott_costs.PNormP(np.float32(1.5))],
    ids=["own", "RegTICost", "PNormP"],
)
def test_costs_that_no_file_can_hold_are_refused(cost):
    coupling = uc.ot.solve_unbalanced(X, Y, tau=0.95)
    with pytest.raises(ValueError, match=rf"a cost that a file can hold.*found {type(cost).__name__}\. Fit with"):
        encode_coupling(replace(coupling, cost_fn=cost))


def test_settings_that_make_no_coupling_of_these_cells_are_refused():
    settings, arrays = encode_coupling(uc.ot.solve_unbalanced(X, Y, anchors=30, tau=0.95))
    for changed in ({"f": arrays["f"][:-1]}, {"a": arrays["a"].astype(float)}, {"anchors/source": np.array([40])}):
        with pytest.raises(ValueError, match=r"shape|rows"):
            decode_coupling(settings, arrays | changed, X, Y)
    for changed in ({"kind": "os.system"}, {"cost": {"name": "eval"}}, {"cost": {"name": "PNormP"}}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            decode_coupling(settings | changed, arrays, X, Y)
