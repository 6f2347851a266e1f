"""Where a quadratic problem is started from: it has many local solutions, and symmetric data have several good ones."""

from __future__ import annotations

from itertools import product

import jax.numpy as jnp
import numpy as np

from uotcell.ot._alternation import Alternation, QuadraticProblem, alternate, objective, plan_of

# Leading coordinates of each space whose signs are tried.
SIGNED_DIMS = 6
# ε of a start from leading coordinates: small enough to tell them apart, large enough to be left again.
START_EPSILON = 0.03
# ε at which starts are compared first. Solutions fork at about a tenth of the mean cost; from there on they are few.
FORK_EPSILON, PRODUCT_EPSILON = 0.05, 1.0
LADDER_STEP, LADDER_OUTER = 0.4, 30
# Starts followed to the end.
FINALISTS = 4


def ladder(start: float, epsilon: float) -> list[float]:
    """Values of ε falling geometrically from ``start``, ending at ``epsilon``."""
    values = [epsilon]
    while values[0] / LADDER_STEP <= start * 1.001:
        values.insert(0, values[0] / LADDER_STEP)
    return values


def descend(
    problem: QuadraticProblem,
    plan,
    levels: list[float],
    *,
    tau,
    threshold: float,
    max_outer: int,
    state: Alternation | None = None,
) -> Alternation:
    """Alternate at falling values of ε, each from the plan of the one before; only the last is followed to the end."""
    a, b = problem.a, problem.b
    potentials, offset = (jnp.zeros_like(a), jnp.zeros_like(b)), jnp.zeros((), jnp.float32)
    if state is not None:
        potentials, offset = (state.solution.f, state.solution.g), state.offset
    n_outer, n_sweeps = 0, 0
    for level in levels:
        state = alternate(
            problem, plan, potentials, offset, epsilon=jnp.float32(level), tau=tau, threshold=threshold,
            max_outer=max_outer if level == levels[-1] else min(LADDER_OUTER, max_outer),
        )  # fmt: skip
        plan, potentials, offset = state.plan, (state.solution.f, state.solution.g), state.offset
        n_outer, n_sweeps = n_outer + state.n_outer, n_sweeps + state.n_sweeps
    return state._replace(n_outer=n_outer, n_sweeps=n_sweeps)


def best_starts(
    problem: QuadraticProblem, n_starts: int, rng: np.random.Generator, *, epsilon: float, tau, **settings
) -> list[Alternation]:
    """Solve a small problem from several starts and return distinct solutions, that of the lowest objective first.

    The first start is the product of the masses at a large ε. Further ones match the leading principal coordinates
    of the two spaces (classical scaling of their costs) under every choice of signs, then under random rotations.

    Parameters
    ----------
    problem
        Costs and masses.
    n_starts
        Starts that are compared; all are followed a little, the best few to the end.
    rng
        Generator of the rotations.
    epsilon, tau
        Entropic regularisation, and λ/(λ+ε) per side.
    settings
        See :func:`descend`.

    Returns
    -------
    At most four solutions.
    """
    prior = problem.a[:, None] * problem.b
    settings = {"tau": tau, **settings}
    fork = max(epsilon, FORK_EPSILON)
    found = [descend(problem, prior / prior.sum(), ladder(PRODUCT_EPSILON, fork), **settings)]
    for rotation, source, target in _alignments(problem, n_starts - 1, rng):
        cost = (((source @ rotation)[:, None] - target) ** 2).sum(axis=2)
        # The whole cost is in units of its mean: what the linear part leaves of one is the quadratic part's.
        cost = max(0.0, 1 - float(problem.linear.mean())) * cost / cost.mean() + problem.linear
        plan, _ = plan_of(
            jnp.asarray(cost, jnp.float32), problem.a, problem.b, epsilon=jnp.float32(START_EPSILON), tau=tau,
            threshold=1e-2, max_sweeps=200,
        )  # fmt: skip
        found.append(descend(problem, plan, [fork], **{**settings, "max_outer": LADDER_OUTER}))

    finalists = sorted(found, key=lambda state: value(problem, state, fork, tau))[:FINALISTS]
    ends = [descend(problem, s.plan, ladder(fork, epsilon), state=s, **settings) for s in finalists]
    ends = sorted(ends, key=lambda state: value(problem, state, epsilon, tau))
    # Starts that end in one place agree in the objective to well within this.
    values = [value(problem, state, epsilon, tau) for state in ends]
    return [end for k, end in enumerate(ends) if k == 0 or values[k] - values[k - 1] > 1e-3 * abs(values[k])]


def value(problem: QuadraticProblem, state: Alternation, epsilon: float, tau: tuple[float, float]) -> float:
    """Objective of a solution, infinite where it has none."""
    found = float(objective(problem, state.plan, epsilon, tau))
    return found if np.isfinite(found) else np.inf


def _alignments(problem: QuadraticProblem, n: int, rng: np.random.Generator):
    """Rotations of the leading coordinates of the source, with these and the target's."""
    if n < 1:
        return
    k = min(SIGNED_DIMS, max(1, int(np.ceil(np.log2(n + 1)))))
    source, target = (_coordinates(np.asarray(d, np.float64), k) for d in (problem.source, problem.target))
    k = min(source.shape[1], target.shape[1])
    source, target = source[:, :k], target[:, :k]
    rotations = [np.diag(signs) for signs in product((1.0, -1.0), repeat=k)][:n]
    while len(rotations) < n:
        rotations.append(np.linalg.qr(rng.normal(size=(k, k)))[0])
    for rotation in rotations:
        yield rotation, source, target


def _coordinates(distances: np.ndarray, k: int) -> np.ndarray:
    """Classical scaling: leading principal coordinates of which squared distances are closest to these."""
    centred = distances - distances.mean(axis=0) - distances.mean(axis=1)[:, None] + distances.mean()
    values, vectors = np.linalg.eigh(-(centred + centred.T) / 4)
    keep = values[::-1][:k] > 1e-9 * np.abs(values).max()
    return (vectors[:, ::-1][:, :k] * np.sqrt(np.maximum(values[::-1][:k], 0)))[:, keep]
