"""Where a quadratic problem is started from: it has many local solutions, and symmetric data have several good ones."""

from __future__ import annotations

from itertools import islice, product

import jax.numpy as jnp
import numpy as np

from uotcell.ot._alternation import Alternation, QuadraticProblem, alternate, objective, plan_of
from uotcell.ot._annealing import ladder
from uotcell.ot._inputs import on_device
from uotcell.ot._sinkhorn import Penalties

# Leading coordinates of each space: all of them, and those whose signs are tried.
COORDINATES, SIGNED_DIMS = 10, 6
# Rounds in which the best solution is reflected in each of its axes.
REFLECTIONS = 4
# Solutions whose objectives differ by less than this share are one.
SAME_OBJECTIVE = 3e-4
# ε of a start from leading coordinates: small enough to tell them apart, large enough to be left again.
START_EPSILON = 0.03
# ε at which starts are compared first. Solutions fork at about a tenth of the mean cost; from there on they are few.
FORK_EPSILON, PRODUCT_EPSILON = 0.05, 1.0
LADDER_OUTER, MATCH_SWEEPS = 30, 200
# Starts followed to the end.
FINALISTS = 4


def descend(
    problem: QuadraticProblem,
    plan,
    levels: list[float],
    *,
    penalties: Penalties,
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
            problem, plan, potentials, offset, epsilon=np.float32(level), penalties=penalties, threshold=threshold,
            max_outer=max_outer if level == levels[-1] else min(LADDER_OUTER, max_outer),
        )  # fmt: skip
        plan, potentials, offset = state.plan, (state.solution.f, state.solution.g), state.offset
        n_outer, n_sweeps = n_outer + state.n_outer, n_sweeps + state.n_sweeps
    return state._replace(n_outer=n_outer, n_sweeps=n_sweeps)


def best_starts(
    problem: QuadraticProblem,
    n_starts: int,
    rng: np.random.Generator,
    *,
    epsilon: float,
    penalties: Penalties,
    **settings,
) -> list[Alternation]:
    """Solve a small problem from several starts and return distinct solutions, that of the lowest objective first.

    The first start is the product of the masses at a large ε. Further ones match the leading principal coordinates
    of the two spaces (classical scaling of their costs) under every choice of signs, then under random rotations; the
    best solution is then reflected in its axes as long as that helps.

    Parameters
    ----------
    problem
        Costs and masses.
    n_starts
        Starts that are compared; all are followed a little, the best few to the end.
    rng
        Generator of the rotations.
    epsilon, penalties
        Entropic regularisation, and λ/ε per side.
    settings
        See :func:`descend`.

    Returns
    -------
    At most four solutions.
    """
    prior = problem.a[:, None] * problem.b
    settings = {"penalties": penalties, **settings}
    briefly = {**settings, "max_outer": LADDER_OUTER}
    fork = max(epsilon, FORK_EPSILON)
    found = [descend(problem, prior / prior.sum(), ladder(PRODUCT_EPSILON, fork), **briefly)]
    if n_starts == 1:
        return [descend(problem, found[0].plan, ladder(fork, epsilon), state=found[0], **settings)]
    coordinates = [_coordinates(np.asarray(d, np.float64)) for d in (problem.source, problem.target)]
    for rotation in _rotations(*(side.shape[1] for side in coordinates), n_starts - 1, rng):
        found.append(descend(problem, _match(problem, rotation, *coordinates, penalties), [fork], **briefly))

    def reflected(ends: list[Alternation], at: float, levels: list[float], settings: dict) -> list[Alternation]:
        """Reflect the best solution in its axes as long as that helps; the best few of all, in order."""
        ends = sorted(ends, key=lambda state: value(problem, state, at, penalties))[:FINALISTS]
        for _ in range(REFLECTIONS):
            best = value(problem, ends[0], at, penalties)
            for rotation in _reflections(ends[0].plan, *coordinates):
                plan = _match(problem, rotation, *coordinates, penalties)
                ends.append(descend(problem, plan, levels, **settings))
            ends = sorted(ends, key=lambda state: value(problem, state, at, penalties))[:FINALISTS]
            if not value(problem, ends[0], at, penalties) < best - SAME_OBJECTIVE * abs(best):
                break
        return ends

    found = reflected(found, fork, [fork], briefly)
    found = [descend(problem, s.plan, ladder(fork, epsilon), state=s, **settings) for s in found]
    ends = reflected(found, epsilon, ladder(START_EPSILON, epsilon), settings)
    values = [value(problem, state, epsilon, penalties) for state in ends]
    return [end for k, end in enumerate(ends) if k == 0 or values[k] - values[k - 1] > SAME_OBJECTIVE * abs(values[k])]


def value(problem: QuadraticProblem, state: Alternation, epsilon: float, penalties: Penalties) -> float:
    """Objective of a solution, infinite where it has none."""
    found = float(objective(problem, state.plan, epsilon, penalties))
    return found if np.isfinite(found) else np.inf


def _rotations(n_source: int, n_target: int, n: int, rng: np.random.Generator):
    """Matrices that match coordinates: every choice of signs of the leading ones, then random rotations of all."""
    k = min(n_source, n_target)
    signed = min(k, SIGNED_DIMS, int(np.ceil(np.log2(n + 1))))
    # The leading coordinate's sign varies slowest: few starts differ in few of them.
    for signs in islice(product((1.0, -1.0), repeat=signed), n):
        rotation = np.zeros((n_source, n_target))
        rotation[range(signed), range(signed)] = signs
        yield rotation
    for _ in range(n - 2**signed):
        yield np.eye(n_source, k) @ np.linalg.qr(rng.normal(size=(k, k)))[0] @ np.eye(k, n_target)


def _reflections(plan, source: np.ndarray, target: np.ndarray):
    """Rotations closest to a plan, reflected in one of its principal directions at a time.

    A solution that is not the best is often right but for the direction of an axis along which cells vary little.
    """
    left, _, right = np.linalg.svd(source.T @ np.asarray(plan, np.float64) @ target, full_matrices=False)
    for axis in range(left.shape[1]):
        yield left @ np.diag(np.where(np.arange(left.shape[1]) == axis, -1.0, 1.0)) @ right


def _match(problem: QuadraticProblem, rotation: np.ndarray, source: np.ndarray, target: np.ndarray, penalties):
    """Plan of the linear problem between rotated principal coordinates."""
    used = np.abs(rotation).sum(axis=0) > 0
    cost = (((source @ rotation)[:, None, used] - target[:, used]) ** 2).sum(axis=2)
    # The whole cost is in units of its mean: what the linear part leaves of one is the quadratic part's.
    cost = max(0.0, 1 - float(problem.linear.mean())) * cost / cost.mean() + problem.linear
    settings = {
        "epsilon": np.float32(START_EPSILON),
        "penalties": penalties,
        "threshold": 1e-2,
        "max_sweeps": MATCH_SWEEPS,
    }
    return plan_of(on_device(cost), problem.a, problem.b, **settings)[0]


def _coordinates(distances: np.ndarray) -> np.ndarray:
    """Classical scaling: leading principal coordinates of which squared distances are closest to these."""
    centred = distances - distances.mean(axis=0) - distances.mean(axis=1)[:, None] + distances.mean()
    values, vectors = np.linalg.eigh(-(centred + centred.T) / 4)
    values, vectors = values[::-1][:COORDINATES], vectors[:, ::-1][:, :COORDINATES]
    keep = values > 1e-9 * np.abs(values).max()
    return vectors[:, keep] * np.sqrt(values[keep])
