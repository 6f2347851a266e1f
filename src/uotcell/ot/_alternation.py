"""Quadratic transport by alternation: a linear problem gives a plan, the plan the next cost, until nothing changes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from uotcell.ot._geometry import HIGHEST, PointGeometry
from uotcell.ot._sinkhorn import Penalties, SinkhornSolution, sinkhorn

# Sweeps of one linear solve. Potentials are kept from one to the next, so that an unfinished solve is gone on with.
INNER_SWEEPS = 100


class QuadraticProblem(NamedTuple):
    """Within-space costs (n, n) and (m, m), the linear cost (n, m), masses, and the weight of the quadratic part.

    All are in units in which the whole cost counts as one; ``linear`` holds its own weight.
    """

    source: jax.Array
    target: jax.Array
    linear: jax.Array
    a: jax.Array
    b: jax.Array
    weight: jax.Array


class Alternation(NamedTuple):
    """Where an alternation stands.

    ``solution`` is that of the linear problem whose cost is linearised at ``reference`` and raised by ``offset``; its
    plan, of mass one, is ``plan``; ``change`` is the L1 distance of the two.
    """

    reference: jax.Array
    plan: jax.Array
    solution: SinkhornSolution
    offset: jax.Array
    change: jax.Array
    n_outer: jax.Array
    n_sweeps: jax.Array


@jax.jit
def linearised_cost(problem: QuadraticProblem, plan: jax.Array) -> jax.Array:
    """Σ (Dx[i, k] − Dy[j, l])² P[k, l] of a plan of mass one, weighted, plus the linear cost; shape ``(n, m)``."""
    source, target = problem.source, problem.target
    crossed = jnp.matmul(jnp.matmul(source, plan, precision=HIGHEST), target.T, precision=HIGHEST)
    squares_x = jnp.matmul(source**2, plan.sum(axis=1), precision=HIGHEST)
    squares_y = jnp.matmul(target**2, plan.sum(axis=0), precision=HIGHEST)
    return problem.weight * (squares_x[:, None] + squares_y - 2 * crossed) + problem.linear


@jax.jit
def objective(problem: QuadraticProblem, plan: jax.Array, epsilon, penalties: Penalties) -> jax.Array:
    """Return what the problem minimises, of a plan of mass one.

    ∬ [(1−w) (Dx − Dy)² + w (c + c')] dP dP + 2 [ε KL(P | a⊗b) + λ₁ KL(P1 | a) + λ₂ KL(Pᵀ1 | b)], where KL is
    Σ p log(p/q), for twice this is what the divergences of P⊗P come to.
    """
    pairs = jnp.sum(plan * (linearised_cost(problem, plan) + problem.linear))
    rows, columns = plan.sum(axis=1), plan.sum(axis=0)
    prior = problem.a[:, None] * problem.b
    source_penalty, target_penalty = penalties.times(epsilon)
    terms = ((epsilon, plan, prior), (source_penalty, rows, problem.a), (target_penalty, columns, problem.b))
    return pairs + 2 * sum(weight * jnp.sum(jax.scipy.special.kl_div(p, q) + p - q) for weight, p, q in terms)


def best_mass(value, a_total, b_total, epsilon, penalties: Penalties):
    """Mass at which a plan of this shape and objective S is best.

    Of m times the plan the objective is m² S + Λ (2 m² log m − m²) with Λ = ε + λ₁ + λ₂, so log m = −S / (2 Λ). A
    balanced side leaves no choice.
    """
    if None in penalties:
        return a_total if penalties.source is None else b_total
    return jnp.exp(-value / (2 * (epsilon + sum(penalties.times(epsilon)))))


@jax.jit
def plan_of(cost, a, b, *, epsilon, penalties, threshold, max_sweeps, start=None) -> tuple[jax.Array, SinkhornSolution]:
    """Solve a linear problem; return its plan scaled to mass one, and its potentials."""
    geometry = PointGeometry.from_cost(cost, a, b, epsilon)
    solution = sinkhorn(geometry, penalties=penalties, threshold=threshold, max_iterations=max_sweeps, start=start)
    plan = a[:, None] * b * jnp.exp((solution.f[:, None] + solution.g - cost) / epsilon)
    return plan / plan.sum(), solution


@jax.jit
def alternate(
    problem: QuadraticProblem,
    plan: jax.Array,
    potentials: tuple[jax.Array, jax.Array],
    offset: jax.Array,
    *,
    epsilon: jax.Array,
    penalties: Penalties,
    threshold: float,
    max_outer: int,
) -> Alternation:
    """Alternate between plan and cost until the plan stays (Séjourné, Vialard & Peyré 2021, with plans of mass one).

    Parameters
    ----------
    problem
        Costs and masses.
    plan
        Plan of mass one to start from, shape ``(n, m)``.
    potentials, offset
        Potentials to start from, and a constant added to the cost, which changes nothing but the mass of the linear
        problem: it follows this mass and keeps it near one.
    epsilon, penalties
        Entropic regularisation, and λ/ε per side.
    threshold
        Largest accepted L1 change of the plan, and marginal error of the linear solve.
    max_outer
        Most linear problems.

    Returns
    -------
    The last linear problem, solved.
    """
    total_penalty = None if None in penalties else epsilon + sum(penalties.times(epsilon))
    settings = {"epsilon": epsilon, "penalties": penalties, "threshold": threshold, "max_sweeps": INNER_SWEEPS}

    def step(reference: jax.Array, start, offset: jax.Array, n_outer: int, n_sweeps: int) -> Alternation:
        cost = linearised_cost(problem, reference) + offset
        plan, solution = plan_of(cost, problem.a, problem.b, start=start, **settings)
        change = jnp.abs(plan - reference).sum()
        return Alternation(reference, plan, solution, offset, change, n_outer + 1, n_sweeps + solution.n_iters)

    def advance(state: Alternation) -> Alternation:
        offset = state.offset
        if total_penalty is not None:
            offset = offset + total_penalty * jnp.log(state.solution.source_weights.sum())
        return step(state.plan, (state.solution.f, state.solution.g), offset, state.n_outer, state.n_sweeps)

    def go_on(state: Alternation) -> jax.Array:
        # NaN errors compare False and end the loop; the caller reads them.
        unfinished = (state.change > threshold) | (state.solution.marginal_error > threshold)
        return unfinished & (state.n_outer < max_outer)

    zero = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(go_on, advance, step(plan, potentials, offset, zero, zero))
