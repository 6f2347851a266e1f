"""The exact Monge gap on maps that are and are not optimal."""

import numpy as np
import ott.geometry.costs as ott_costs
import pytest

import uotcell as uc

X = np.random.default_rng(0).normal(size=(120, 3))
ROOT = np.random.default_rng(1).normal(size=(3, 3))


def rotated(degrees):
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return X @ turn.T


@pytest.mark.parametrize(
    "image", [X, X + 100, 3 * X, X @ (ROOT @ ROOT.T + np.eye(3)), np.log1p(np.exp(X)), X * 0 + 1], ids=str
)
def test_gradients_of_convex_functions_have_no_gap(image):
    assert uc.metrics.monge_gap(X, image) <= 1e-4 * ((X[:, None] - image) ** 2).sum(-1).mean()


def test_a_rotation_has_the_gap_of_its_swirl():
    gaps = [uc.metrics.monge_gap(X, rotated(degrees)) for degrees in (0, 45, 90, 180)]
    assert gaps == sorted(gaps)
    assert gaps[0] == 0
    # A half turn of a symmetric cloud costs 4 E r², of which nothing is needed but sampling noise.
    assert gaps[-1] == pytest.approx(4 * (X[:, :2] ** 2).sum(1).mean(), rel=0.2)


@pytest.mark.parametrize("cost", ["euclidean", ott_costs.PNormP(1.5)])
def test_other_costs(cost):
    assert uc.metrics.monge_gap(X, X + 2.0, cost=cost) <= 1e-4
    assert uc.metrics.monge_gap(X, -X, cost=cost) > 0.3


def test_cosine_is_measured_from_the_origin():
    assert uc.metrics.monge_gap(X, 5 * X, cost="cosine") <= 1e-5
    assert uc.metrics.monge_gap(X, -X, cost="cosine") > 1


def test_bad_input():
    with pytest.raises(ValueError, match="one `image` per cell, found 5 for 120"):
        uc.metrics.monge_gap(X, X[:5])
    with pytest.raises(ValueError, match="`cost` to be one of"):
        uc.metrics.monge_gap(X, X, cost="hamming")
