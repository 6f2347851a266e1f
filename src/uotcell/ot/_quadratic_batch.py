"""Quadratic transport between two batches inside a compiled loop, started from the solution of the whole problem."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry.costs import SqEuclidean

from uotcell.ot._alternation import (
    INNER_SWEEPS,
    QuadraticProblem,
    alternate,
    best_mass,
    linearised_cost,
    objective,
    plan_of,
)
from uotcell.ot._geometry import HIGHEST, pairwise_cost
from uotcell.ot._quadratic_coupling import QuadraticCoupling
from uotcell.ot._sinkhorn import Penalties
from uotcell.ot._spaces import Linearisation, PathSpace


class QuadraticReference(NamedTuple):
    """What every batch of a quadratic problem is solved with: the pair's own costs, ε, masses and solution."""

    linearisation: Linearisation
    epsilon: jax.Array
    penalties: Penalties
    mass: tuple[jax.Array, jax.Array]

    @classmethod
    def of(cls, coupling: QuadraticCoupling) -> QuadraticReference:
        """Take the problem of a coupling.

        Parameters
        ----------
        coupling
            Solved problem whose within-space costs are functions of two points.

        Returns
        -------
        Arrays to be passed into compiled functions.

        Raises
        ------
        ValueError
            If a cost is geodesic.
        """
        linearisation = coupling.cost.linearisation
        if any(isinstance(space, PathSpace) for space in (linearisation.source, linearisation.target)):
            raise ValueError(
                "Expected within-space costs that are functions of two cells for transport between batches, found a "
                "geodesic one, which needs the graph of all cells. Use the coupling of the whole problem, or another "
                "`cost`."
            )
        epsilon, penalties = np.float32(coupling.epsilon), Penalties.of(coupling.tau)
        return cls(linearisation, epsilon, penalties, (coupling.a.sum(), coupling.b.sum()))


class QuadraticBatch(NamedTuple):
    """Logarithm of the plan between two batches, and how far it is from optimal.

    ``marginal_error`` is the violated optimality condition as a share of the mass, ``change`` the L1 distance between
    the plan scaled to mass one and the one its cost is linearised at.
    """

    log_plan: jax.Array
    marginal_error: jax.Array
    change: jax.Array


def quadratic_batch(
    x: jax.Array,
    y: jax.Array,
    reference: QuadraticReference,
    *,
    threshold: float = 1e-2,
    max_outer: int = 20,
) -> QuadraticBatch:
    """Solve quadratic transport between batches drawn from the prior measures; compilable.

    The first linear problem has the cost of the whole problem's plan, so that consecutive batches agree on one of the
    solutions that symmetric data have.

    Parameters
    ----------
    x, y
        Cells minus the coupling's shifts, shared features last, shapes ``(n, d_x)`` and ``(m, d_y)``.
    reference
        The whole problem.
    threshold
        Errors at which the alternation and its linear problems stop.
    max_outer
        Most linear problems, of at most a hundred sweeps each.

    Returns
    -------
    Logarithm of the plan, shape ``(n, m)``, in the KL convention, and the errors reached.
    """
    linearisation, epsilon, penalties, totals = reference
    source, target = linearisation.source, linearisation.target
    n_own = source.anchors.shape[1], target.anchors.shape[1]
    within = [
        pairwise_cost(space.cost_fn, points[:, :k], points[:, :k]) / space.scale
        for space, points, k in zip((source, target), (x, y), n_own, strict=True)
    ]
    linear = jnp.zeros((len(x), len(y)), x.dtype)
    if x.shape[1] > n_own[0]:
        linear = linearisation.shared_weight * pairwise_cost(SqEuclidean(), x[:, n_own[0] :], y[:, n_own[1] :])
    a, b = (jnp.full(len(points), total / len(points)) for points, total in zip((x, y), totals, strict=True))
    problem = QuadraticProblem(*within, linear, a, b, linearisation.weight)

    settings = {"epsilon": epsilon, "penalties": penalties, "threshold": threshold}
    cost = jnp.matmul(linearisation.left(x, n_own[0]), linearisation.right(y, n_own[1]).T, precision=HIGHEST)
    plan, solution = plan_of(cost, a, b, max_sweeps=INNER_SWEEPS, **settings)
    state = alternate(problem, plan, (solution.f, solution.g), linearisation.offset, max_outer=max_outer, **settings)
    solution = state.solution
    cost = linearised_cost(problem, state.reference) + state.offset
    mass = best_mass(objective(problem, state.plan, epsilon, penalties), *totals, epsilon, penalties)
    scale = jnp.log(mass / solution.source_weights.sum())
    log_plan = jnp.log(a)[:, None] + jnp.log(b) + (solution.f[:, None] + solution.g - cost) / epsilon + scale
    return QuadraticBatch(log_plan, solution.marginal_error, state.change)
