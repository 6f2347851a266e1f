"""Properties that every solved coupling has, on examples that hypothesis chooses.

One pair of sizes and few τ, so that all examples share a handful of compiled programs.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import kl_div
from sinkhorn_reference import reference_plan

import uotcell as uc

N, M, D = 12, 8, 2
THRESHOLD = 1e-4
TAUS = [(0.9, 0.9), (0.8, 0.95), (1.0, 1.0)]


def cells(n):
    # Multiples of 1/64 stand in float32 exactly, and moved by integers still do.
    return hnp.arrays(np.float64, (n, D), elements=st.integers(-128, 128).map(lambda k: k / 64))


def masses(n):
    return hnp.arrays(np.float64, n, elements=st.sampled_from([1e-3, 0.1, 0.5, 1.0, 2.0]))


@st.composite
def problems(draw, taus=TAUS):
    """Two clouds with masses of sum one, ε and τ; costs are in units of one. The last source cell has no mass."""
    x, y, a, b = draw(cells(N)), draw(cells(M)), draw(masses(N)), draw(masses(M))
    a[-1] = 0.0
    settings = {"epsilon": draw(st.sampled_from([0.1, 0.5, 2.0])), "tau": draw(st.sampled_from(taus))}
    return SimpleNamespace(x=x, y=y, a=a / a.sum(), b=b / b.sum(), settings=settings)


def solve(p, **changes):
    arguments = {"x": p.x, "y": p.y, "a": p.a, "b": p.b, "scale_cost": 1.0, "threshold": THRESHOLD, **p.settings}
    arguments |= changes
    return uc.ot.solve_unbalanced(arguments.pop("x"), arguments.pop("y"), **arguments)


def weights(coupling):
    return tuple(np.asarray(w, np.float64) for w in (coupling.source_weights, coupling.target_weights))


def assert_same(found, expected):
    """Marginals that differ by a few times the accepted violation."""
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(ours - theirs).sum() <= 20 * THRESHOLD * theirs.sum()


@given(problems())
def test_marginals_sum_alike_and_obey_the_optimality_conditions(p):
    coupling = solve(p)
    source, target = weights(coupling)
    assert source.sum() == pytest.approx(target.sum(), rel=1e-5)
    assert coupling.transported_mass == pytest.approx(source.sum())
    inverse = [1 / penalty for penalty in coupling.marginal_penalty]
    # ã = a exp(−f/λ₁) and b̃ = b exp(−g/λ₂).
    np.testing.assert_allclose(source, p.a * np.exp(-np.asarray(coupling.f, float) * inverse[0]), rtol=1e-4, atol=1e-9)
    optimal = p.b * np.exp(-np.asarray(coupling.g, float) * inverse[1])
    assert np.abs(target - optimal).sum() <= 1.1 * THRESHOLD * target.sum() + 1e-6


@given(problems())
def test_agrees_with_float64(p):
    cost = ((p.x[:-1, None] - p.y) ** 2).sum(axis=2)
    plan = reference_plan(cost, p.settings["epsilon"], p.settings["tau"], p.a[:-1], p.b)
    assert_same(weights(solve(p)), (np.append(plan.sum(1), 0.0), plan.sum(0)))


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_cells_does_not_count(p, random):
    i, j = random.sample(range(N), N), random.sample(range(M), M)
    source, target = weights(solve(p))
    assert_same(weights(solve(p, x=p.x[i], y=p.y[j], a=p.a[i], b=p.b[j])), (source[i], target[j]))


@given(problems(), hnp.arrays(np.int64, D, elements=st.integers(-1_000_000, 1_000_000)))
def test_moving_both_clouds_changes_nothing(p, shift):
    assert_same(weights(solve(p, x=p.x + shift, y=p.y + shift)), weights(solve(p)))


@given(problems(), st.sampled_from([1e-12, 1e-6, 0.3, 1e4, 1e8]))
def test_units_of_the_cells_change_nothing_where_the_scale_follows(p, factor):
    spread = ((p.x[:, None] - p.y) ** 2).sum(axis=2)
    mean, median = p.a @ spread @ p.b, np.median(spread[:-1])
    assume(0 < mean < 4 * median)  # beyond five times uotcell warns
    relative = {"scale_cost": "mean"}
    found = solve(p, x=p.x * factor, y=p.y * factor, **relative)
    assert_same(weights(found), weights(solve(p, **relative)))
    assert found.scale == pytest.approx(mean * factor**2, rel=1e-5)


@given(problems(), st.sampled_from([0.01, 0.5, 7.0, 1e3]))
def test_only_ratios_of_cost_epsilon_and_penalty_count(p, factor):
    # (C/s, ε, λ) and (C/(s/k), kε, kλ) are one problem times k, and τ = λ/(λ + ε) stays.
    found = solve(p, epsilon=p.settings["epsilon"] * factor, scale_cost=1 / factor)
    assert_same(weights(found), weights(solve(p)))
    np.testing.assert_allclose(found.f, factor * np.asarray(solve(p).f), rtol=1e-2, atol=1e-3 * factor)


@given(problems())
def test_swapping_the_sides_swaps_the_answer(p):
    tau = p.settings["tau"][::-1]
    assert_same(weights(solve(p, x=p.y, y=p.x, a=p.b, b=p.a, tau=tau))[::-1], weights(solve(p)))


@given(problems(), st.integers(0, N - 2), st.sampled_from([1e-6, 0.1, 0.5]))
def test_a_cell_may_be_split_in_two(p, cell, share):
    # The last cell becomes a copy of another one and takes a share of its mass.
    x, split = p.x.copy(), p.a.copy()
    x[-1] = x[cell]
    split[[cell, -1]] = (1 - share) * p.a[cell], share * p.a[cell]
    source, target = weights(solve(p, x=x, a=split))
    source[cell], source[-1] = source[cell] + source[-1], 0.0
    assert_same((source, target), weights(solve(p)))


@given(problems(taus=[None]))
def test_dearer_mass_leaves_the_priors_less_and_moves_more(p):
    """At a fixed ε, τ and λ rise together, λ₁ = λ₂ = λ.

    The divergence D(λ) of the optimal marginals from the priors falls: with E(π) the rest of the objective, adding
    E(π) + λD(π) ≤ E(π') + λD(π') and E(π') + λ'D(π') ≤ E(π) + λ'D(π) leaves (λ − λ')(D(π) − D(π')) ≤ 0.

    The transported mass rises: for a and b of sum one it is m = 1 − V/(ε + 2λ), V the minimum, with dV/dλ = D. So
    (ε + 2λ)² dm/dλ = 2V − (ε + 2λ)D = 2⟨C, π⟩ + ε (2 KL(π | a⊗b) − D), and D ≤ 2 KL(π | a⊗b), since the divergence
    of a marginal is at most that of the plan.

    No such thing is true of the weight of a single cell, which may rise while a better one is not to be had. In the
    limit all are the priors.
    """
    divergences, transported = [], []
    for tau in (0.5, 0.8, 0.95, 0.999):
        coupling = solve(p, tau=(tau, tau))
        sides = zip(weights(coupling), (p.a, p.b), strict=True)
        divergences.append(sum(kl_div(w, prior).sum() for w, prior in sides))
        transported.append(coupling.transported_mass)
    assert np.all(np.diff(divergences) <= 20 * THRESHOLD)
    assert np.all(np.diff(transported) >= -20 * THRESHOLD)
    penalty = 0.999 / 0.001 * p.settings["epsilon"]
    # λ D ≤ V ≤ ⟨C, a⊗b⟩, that is, the value of the product plan.
    product = p.a @ ((p.x[:, None] - p.y) ** 2).sum(axis=2) @ p.b
    assert penalty * divergences[-1] <= product * (1 + 1e-3) + 20 * THRESHOLD
    assert transported[-1] <= 1 + 20 * THRESHOLD
    assert transported[-1] >= 1 - product / (2 * penalty) - 20 * THRESHOLD
