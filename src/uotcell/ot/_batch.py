"""Balanced transport between two batches inside a training loss: fast, differentiable without unrolling."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Sweeps between two absorptions. One costs two products with a kernel that stays in cache, while an absorption costs
# an exponential per entry: at 256 × 256 on a CPU, 5 µs against 0.3 ms.
SWEEPS_PER_ABSORPTION = 20


class BatchPlan(NamedTuple):
    """Plan between uniform batches, its dual value in the KL(π | a⊗b) convention, and its worst marginal error."""

    plan: jax.Array
    value: jax.Array
    error: jax.Array


def batch_plan(cost: jax.Array, epsilon: jax.Array, *, threshold: float = 1e-2, max_sweeps: int = 1_000) -> BatchPlan:
    """Solve entropic transport between two uniform measures on a dense cost matrix.

    Sinkhorn's iterations are products with a kernel into which the potentials are absorbed every few sweeps (Schmitzer
    2019), which neither underflows nor pays for an exponential per entry in every sweep. Nothing is differentiated.

    Parameters
    ----------
    cost
        Costs, shape ``(n, m)``.
    epsilon
        Entropic regularisation in units of the cost.
    threshold
        Accepted sum of violations of the row sums; column sums are exact.
    max_sweeps
        Most sweeps, a multiple of 20.

    Returns
    -------
    The plan ``(n, m)`` of mass one, the dual value, and the error that was reached.
    """
    n, m = cost.shape
    cost = jax.lax.stop_gradient(cost) / epsilon

    def kernel(f: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.exp(f[:, None] + g - cost)

    def absorb(carry):
        f, g, _, _, n_sweeps = carry
        k = kernel(f, g)

        def sweep(_, scalings):
            u = 1 / (n * (k @ scalings[1]))
            return u, 1 / (m * (u @ k))

        u, v = jax.lax.fori_loop(0, SWEEPS_PER_ABSORPTION, sweep, (jnp.ones(n), jnp.ones(m)))
        rows = u * (k @ v)
        error = jnp.abs(rows - 1 / n).sum()
        return f + jnp.log(u), g + jnp.log(v), u[:, None] * k * v, error, n_sweeps + SWEEPS_PER_ABSORPTION

    def go_on(carry):
        # A NaN error compares False and ends the loop; the caller sees it in the loss.
        return (carry[3] > threshold) & (carry[4] < max_sweeps)

    # The first kernel has an entry of one in every row and column.
    f = cost.min(axis=1)
    g = (cost - f[:, None]).min(axis=0)
    start = (f, g, jnp.zeros_like(cost), jnp.array(jnp.inf, cost.dtype), jnp.array(0, jnp.int32))
    f, g, plan, error, _ = jax.lax.while_loop(go_on, absorb, start)
    # ⟨C, π⟩ + ε KL(π | a⊗b) with the plan's own marginals equals Σ rows·f + Σ columns·g, up to the constant of a⊗b.
    value = plan.sum(axis=1) @ f + plan.sum(axis=0) @ g + jnp.log(n * m)
    return BatchPlan(plan, epsilon * value, error)


def batch_transport_cost(cost: jax.Array, epsilon: jax.Array, **settings) -> tuple[jax.Array, jax.Array]:
    """Entropic transport cost with the gradient of the envelope theorem: the plan is held, the costs are not.

    Parameters
    ----------
    cost
        Costs, shape ``(n, m)``; gradients flow into them with the plan as weights.
    epsilon, settings
        See :func:`batch_plan`.

    Returns
    -------
    ``⟨C, π⟩ + ε KL(π | a⊗b)`` for uniform a and b, and the marginal error of the plan.
    """
    solved = jax.lax.stop_gradient(batch_plan(cost, epsilon, **settings))
    transport = jnp.sum(solved.plan * cost)
    return solved.value + transport - jax.lax.stop_gradient(transport), solved.error
