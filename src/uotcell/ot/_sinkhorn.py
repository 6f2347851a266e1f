"""The Sinkhorn loop: ott's recentred update, stopped by an error relative to the mass that is transported."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn, SinkhornState

from uotcell.ot._geometry import PointGeometry

SWEEPS_PER_CHECK = 10


class SinkhornSolution(NamedTuple):
    """Potentials in units of the cost scale, the plan's marginals, and how far they are from optimal."""

    f: jax.Array
    g: jax.Array
    source_weights: jax.Array
    target_weights: jax.Array
    marginal_error: jax.Array
    n_iters: jax.Array


def inverse_penalty(tau: float, epsilon: jax.Array) -> jax.Array:
    """1/λ for τ = λ/(λ+ε); zero for the balanced side τ = 1."""
    return (1.0 - tau) / (tau * epsilon)


@partial(jax.jit, static_argnames=("tau",))
def sinkhorn(
    geometry: PointGeometry,
    *,
    tau: tuple[float, float],
    threshold: float,
    max_iterations: int,
    start: tuple[jax.Array, jax.Array] | None = None,
) -> SinkhornSolution:
    """Solve the entropic unbalanced problem on ``geometry`` by recentred Sinkhorn iterations.

    Recentring (Séjourné et al. 2022, Prop. 2) is ott's; the stopping rule is ours. ott stops when an absolute error
    in units of mass is small, which a plan without mass always meets. Here the error is
    ‖πᵀ1 − exp(−g/λ)b‖₁ / ‖π‖₁, the violated optimality condition as a share of what is transported.

    Parameters
    ----------
    geometry
        Points, weights, cost and ε.
    tau
        λ/(λ+ε) of the source and of the target side, each in (0, 1].
    threshold
        Largest accepted ``marginal_error``.
    max_iterations
        Most sweeps; rounded up to a multiple of ten.
    start
        Potentials to start from, as of a similar problem solved before; zero by default.

    Returns
    -------
    Potentials, marginals of the plan (equal sums), error and sweeps used.
    """
    a, b, epsilon = geometry.a, geometry.b, geometry.epsilon
    problem = LinearProblem(geometry, a=a, b=b, tau_a=tau[0], tau_b=tau[1])
    solver = Sinkhorn(recenter_potentials=True)

    def half_step(potential: jax.Array, axis: int) -> jax.Array:
        """Soft minimum of cost minus potential over the other side: the unpenalised update of this side."""
        log_ours = jnp.log(a if axis == 1 else b)
        total, _ = geometry.apply_lse_kernel(potential, potential, epsilon, axis=axis)
        return epsilon * log_ours - total

    def finish(potentials, n_iters) -> SinkhornSolution:
        g = potentials[1]
        # One exact source update, so that row sums obey their optimality condition and only columns can be off.
        s = half_step(g, axis=1)
        f = tau[0] * s
        t = half_step(f, axis=0)
        target_weights = b * jnp.exp((g - t) / epsilon)
        optimal = b * jnp.exp(-g * inverse_penalty(tau[1], epsilon))
        error = jnp.abs(target_weights - optimal).sum() / target_weights.sum()
        return SinkhornSolution(f, g, a * jnp.exp((f - s) / epsilon), target_weights, error, n_iters)

    def go_on(solution: SinkhornSolution) -> jax.Array:
        # A NaN error compares False and ends the loop; the caller reads it.
        return (solution.marginal_error > threshold) & (solution.n_iters < max_iterations)

    def sweeps(solution: SinkhornSolution) -> SinkhornSolution:
        state = SinkhornState(potentials=(solution.f, solution.g))
        state = jax.lax.fori_loop(0, SWEEPS_PER_CHECK, lambda i, s: solver.lse_step(problem, s, i), state)
        # The recentred update works up to a constant moved from one potential to the other; set it to its optimum.
        potentials = state.recenter(state.fu, state.gv, ot_prob=problem)
        return finish(potentials, solution.n_iters + SWEEPS_PER_CHECK)

    f, g = (jnp.zeros_like(a), jnp.zeros_like(b)) if start is None else start
    first = SinkhornSolution(f, g, a, b, jnp.array(jnp.inf, a.dtype), jnp.array(0, jnp.int32))
    return jax.lax.while_loop(go_on, sweeps, first)
