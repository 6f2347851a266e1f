import numpy as np
import ot
import pytest
from scipy import stats

import uotcell as uc
from uotcell.metrics import effective_sample_size, sinkhorn_divergence, wasserstein_1d

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(30, 3)), rng.normal(loc=[1.0, 0.5, 0.0], scale=0.7, size=(20, 3))
A, B = rng.uniform(0.5, 1.5, size=30), rng.uniform(0.5, 1.5, size=20)


def pot_cost(x, y, a, b, epsilon):
    """⟨P, C⟩ and ⟨P, C⟩ + ε KL(P | a⊗b) of POT's optimal plan.

    POT regularises by Σ P log P and we by the KL divergence to a⊗b: with fixed marginals the two differ by a constant
    and have the same plan.
    """
    cost = ot.dist(x, y)
    plan = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-9, numItermax=20_000)
    linear = (plan * cost).sum()
    return np.array([linear, linear + epsilon * (plan * np.log(plan / np.outer(a, b))).sum()])


def pot_divergence(x, y, a, b, epsilon):
    a, b = a / a.sum(), b / b.sum()
    return pot_cost(x, y, a, b, epsilon) - (pot_cost(x, x, a, a, epsilon) + pot_cost(y, y, b, b, epsilon)) / 2


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 20.0])
@pytest.mark.parametrize(("a", "b"), [(np.ones(30), np.ones(20)), (A, B)], ids=["uniform", "weighted"])
def test_agrees_with_pot(a, b, epsilon):
    # Feydy et al. (2019) debias the regularised value, entropy included. POT's `empirical_sinkhorn_divergence` debiases
    # the transport cost ⟨P, C⟩ alone, which is another number: the first entry here, ours being the second.
    sharp, regularised = pot_divergence(X, Y, a, b, epsilon)
    assert sinkhorn_divergence(X, Y, epsilon=epsilon, a=a, b=b) == pytest.approx(regularised, rel=1e-4)
    if a.std() == 0:
        published = ot.bregman.empirical_sinkhorn_divergence(X, Y, epsilon, numIterMax=20_000, stopThr=1e-9)
        assert published == pytest.approx(sharp, rel=1e-6)
    assert abs(sharp - regularised) > 0.01 * regularised


@pytest.mark.parametrize("epsilon", [0.2, 1.0])
@pytest.mark.parametrize("shift", [[3.0, 0.0, 0.0], [0.0, -1.0, 2.0], [10.0, 0.0, 0.0]])
def test_translation(epsilon, shift):
    # ‖x − y − v‖² = ‖x − y‖² − 2⟨x − y, v⟩ + ‖v‖², whose middle term integrates to zero for equal marginals.
    assert sinkhorn_divergence(X, X + shift, epsilon=epsilon) == pytest.approx(np.dot(shift, shift), rel=1e-3)


def test_translation_of_one_side():
    shift = np.array([2.0, -1.0, 0.5])
    expected = sinkhorn_divergence(X, Y, epsilon=1.0) + shift @ shift + 2 * shift @ (Y.mean(axis=0) - X.mean(axis=0))
    assert sinkhorn_divergence(X, Y + shift, epsilon=1.0) == pytest.approx(expected, rel=1e-3)


def test_single_points():
    assert sinkhorn_divergence([[0.0, 0.0]], [[3.0, 4.0]], epsilon=1.0) == pytest.approx(25.0, rel=1e-5)


def test_large_epsilon_compares_means():
    # For ε → ∞ the plan is a⊗b and the divergence ‖E x − E y‖².
    expected = ((X.mean(axis=0) - Y.mean(axis=0)) ** 2).sum()
    assert sinkhorn_divergence(X, Y, epsilon=1e4) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_symmetric(epsilon):
    there = sinkhorn_divergence(X, Y, epsilon=epsilon, a=A, b=B)
    assert sinkhorn_divergence(Y, X, epsilon=epsilon, a=B, b=A) == pytest.approx(there, rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_zero_for_equal_measures_and_positive_for_others(epsilon):
    order = rng.permutation(len(X))
    assert sinkhorn_divergence(X, X[order], epsilon=epsilon, a=A, b=A[order]) == pytest.approx(0.0, abs=1e-3)
    for seed in range(3):
        noisy = X + np.random.default_rng(seed).normal(scale=0.3, size=X.shape)
        assert sinkhorn_divergence(X, noisy, epsilon=epsilon) > 1e-3


def test_weights_count_points():
    copies = np.arange(30) % 2 + 1
    repeated = sinkhorn_divergence(np.repeat(X, copies, axis=0), Y, epsilon=1.0)
    assert sinkhorn_divergence(X, Y, epsilon=1.0, a=copies) == pytest.approx(repeated, rel=1e-3)


def test_points_without_weight_do_not_count():
    far = np.concatenate([X, np.full((5, 3), 50.0)])
    weights = np.concatenate([np.ones(30), np.zeros(5)])
    expected = sinkhorn_divergence(X, Y, epsilon=1.0)
    assert sinkhorn_divergence(far, Y, epsilon=1.0, a=weights) == pytest.approx(expected, rel=1e-3)


def test_masses_are_normalised():
    assert sinkhorn_divergence(X, Y, epsilon=1.0, a=5 * A, b=B) == pytest.approx(
        sinkhorn_divergence(X, Y, epsilon=1.0, a=A, b=7 * B), rel=1e-5
    )


def test_far_from_the_origin():
    far = np.array([1e4, -1e4, 0.0])
    expected = sinkhorn_divergence(X, Y, epsilon=1.0)
    assert sinkhorn_divergence(X + far, Y + far, epsilon=1.0) == pytest.approx(expected, rel=1e-3)


def test_not_converged():
    with pytest.raises(uc.ConvergenceError, match=r"epsilon=1e-06 did not converge\. Raise `epsilon`"):
        sinkhorn_divergence(X, Y, epsilon=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": Y[:, :2]}, "`y` to have 3 dimensions, .* found 2"),
        ({"x": X[0]}, r"`x` .* found shape \(3,\)"),
        ({"x": np.where(X > 1.5, np.nan, X)}, "`x` to be finite, found NaN"),
        ({"a": np.ones(20)}, r"`a` to have shape \(30,\).* found \(20,\)"),
        ({"b": -B}, "`b` to be finite, non-negative"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        sinkhorn_divergence(**{"x": X, "y": Y, "epsilon": 1.0, **arguments})


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1.0] * 7, 7.0), ([0.2] * 7, 7.0), ([1.0, 0.0, 0.0], 1.0), ([3, 1], 1.6), (np.float32([2, 2, 0]), 2.0)],
)
def test_effective_sample_size(weights, expected):
    assert effective_sample_size(weights) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b"), [(np.ones(30), np.ones(20)), (A, B)], ids=["uniform", "weighted"])
def test_wasserstein_1d_agrees_with_scipy_and_pot(a, b):
    distances = wasserstein_1d(X, Y, a=a, b=b)
    assert distances.shape == (3,)
    np.testing.assert_allclose(
        distances, [stats.wasserstein_distance(x, y, a, b) for x, y in zip(X.T, Y.T, strict=True)], rtol=1e-10
    )
    np.testing.assert_allclose(distances, ot.wasserstein_1d(X, Y, a / a.sum(), b / b.sum(), p=1), rtol=1e-6)


def test_wasserstein_1d_of_ties():
    x, y = np.round(X), np.round(Y)
    expected = [stats.wasserstein_distance(*features) for features in zip(x.T, y.T, strict=True)]
    np.testing.assert_allclose(wasserstein_1d(x, y), expected, rtol=1e-10)


def test_wasserstein_1d_of_a_translation():
    shift = np.array([3.0, 0.0, -1.0])
    np.testing.assert_allclose(wasserstein_1d(X, X + shift, a=A, b=A), np.abs(shift), atol=1e-12)
