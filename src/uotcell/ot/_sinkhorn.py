"""The Sinkhorn loop: recentred updates, stopped by an error relative to the mass that is transported."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

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


class Penalties(NamedTuple):
    """λ/ε of the source and of the target side; ``None`` where a side is balanced.

    Numbers are data of a compiled program and ``None`` is part of its structure: problems of all τ share one program
    if the same sides are balanced.
    """

    source: jax.Array | None
    target: jax.Array | None

    @classmethod
    def of(cls, tau: tuple[float, float]) -> Penalties:
        """Take τ = λ/(λ+ε) of both sides, in double precision, in which 1 − τ keeps its digits."""
        return cls(*(None if side == 1 else np.float32(side / (1 - side)) for side in tau))

    @property
    def tau(self) -> tuple[jax.Array | float, ...]:
        """λ/(λ+ε) of both sides."""
        return tuple(1.0 if ratio is None else ratio / (1 + ratio) for ratio in self)

    def times(self, epsilon: jax.Array) -> tuple[jax.Array | float, ...]:
        """λ of both sides; zero where one is balanced: its divergence is zero and its penalty of no account."""
        return tuple(0.0 if ratio is None else ratio * epsilon for ratio in self)


@jax.jit
def sinkhorn(
    geometry: PointGeometry,
    *,
    penalties: Penalties,
    threshold: float,
    max_iterations: int,
    start: tuple[jax.Array, jax.Array] | None = None,
) -> SinkhornSolution:
    """Solve the entropic unbalanced problem on ``geometry`` by recentred Sinkhorn iterations.

    ott stops when an absolute error in units of mass is small, which a plan without mass always meets. Here the error
    is ‖πᵀ1 − exp(−g/λ)b‖₁ / ‖π‖₁, the violated optimality condition as a share of what is transported.

    Parameters
    ----------
    geometry
        Points, weights, cost and ε.
    penalties
        λ/ε of the source and of the target side.
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
    a, b = geometry.a, geometry.b

    def go_on(solution: SinkhornSolution) -> jax.Array:
        # A NaN error compares False and ends the loop; the caller reads it.
        return (solution.marginal_error > threshold) & (solution.n_iters < max_iterations)

    def sweeps(solution: SinkhornSolution) -> SinkhornSolution:
        potentials = (solution.f, solution.g)
        potentials = jax.lax.fori_loop(0, SWEEPS_PER_CHECK, lambda _, fg: sweep(geometry, penalties, *fg), potentials)
        # The recentred update works up to a constant moved from one potential to the other; set it to its optimum.
        _, g = _recentred(geometry, penalties, *potentials)
        return _finish(geometry, penalties, g, solution.n_iters + SWEEPS_PER_CHECK)

    f, g = (jnp.zeros_like(a), jnp.zeros_like(b)) if start is None else start
    first = SinkhornSolution(f, g, a, b, jnp.array(jnp.inf, a.dtype), jnp.array(0, jnp.int32))
    return jax.lax.while_loop(go_on, sweeps, first)


def sweep(geometry: PointGeometry, penalties: Penalties, f: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Update both potentials, the target's first.

    Where no side is balanced, each up to the constant that is best moved to the other (Séjourné et al. 2022). This is
    ott's update with its coefficients k and ξ written in λ/ε, for ott's is compiled anew for every τ.
    """
    (tau_a, tau_b), (lambda_a, lambda_b) = penalties.tau, penalties.times(geometry.epsilon)
    if None in penalties:
        g = tau_b * _soft_minimum(geometry, f, axis=0)
        return tau_a * _soft_minimum(geometry, g, axis=1), g
    r, s = penalties
    g = tau_b * _soft_minimum(geometry, f, axis=0)
    g = g - s / ((1 + s) * (r + s)) * _soft_mean(f, geometry.a, lambda_a)
    g = g + r / (s * (1 + r + s)) * _soft_mean(g, geometry.b, lambda_b)
    f = tau_a * _soft_minimum(geometry, g, axis=1)
    f = f - r / ((1 + r) * (r + s)) * _soft_mean(g, geometry.b, lambda_b)
    f = f + s / (r * (1 + r + s)) * _soft_mean(f, geometry.a, lambda_a)
    return f, g


def _recentred(geometry: PointGeometry, penalties: Penalties, f: jax.Array, g: jax.Array):
    """Move the constant between the potentials to where the dual is largest (Prop. 2); centre ``f`` if it is free."""
    if penalties == (None, None):
        shift = -f.mean()
    elif None in penalties:
        shift = 0.0
    else:
        lambda_a, lambda_b = penalties.times(geometry.epsilon)
        means = _soft_mean(f, geometry.a, lambda_a), _soft_mean(g, geometry.b, lambda_b)
        shift = (lambda_a * means[1] - lambda_b * means[0]) / (lambda_a + lambda_b)
    return f + shift, g - shift


def _finish(geometry: PointGeometry, penalties: Penalties, g: jax.Array, n_iters: jax.Array) -> SinkhornSolution:
    """Take one exact source update, so that row sums obey their optimality condition and only columns can be off."""
    a, b, epsilon = geometry.a, geometry.b, geometry.epsilon
    s = _soft_minimum(geometry, g, axis=1)
    f = penalties.tau[0] * s
    t = _soft_minimum(geometry, f, axis=0)
    target_weights = b * jnp.exp((g - t) / epsilon)
    optimal = b if penalties.target is None else b * jnp.exp(-g / penalties.times(epsilon)[1])
    error = jnp.abs(target_weights - optimal).sum() / target_weights.sum()
    return SinkhornSolution(f, g, a * jnp.exp((f - s) / epsilon), target_weights, error, n_iters)


def _soft_minimum(geometry: PointGeometry, potential: jax.Array, axis: int) -> jax.Array:
    """Soft minimum of cost minus potential over the other side: the unpenalised update of this side."""
    log_ours = jnp.log(geometry.a if axis == 1 else geometry.b)
    total, _ = geometry.apply_lse_kernel(potential, potential, geometry.epsilon, axis=axis)
    return geometry.epsilon * log_ours - total


def _soft_mean(potential: jax.Array, mass: jax.Array, penalty: jax.Array) -> jax.Array:
    """−λ log Σ m exp(−potential/λ)."""
    return -penalty * logsumexp(-potential / penalty, b=mass)
