"""Solve quadratic (Gromov-Wasserstein) and fused transport between two spaces, balanced or not."""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn

from uotcell._errors import ConvergenceError
from uotcell._memory import check_memory, parse_memory
from uotcell.ot._alternation import (
    INNER_SWEEPS,
    QuadraticProblem,
    best_mass,
    linearised_cost,
    objective,
    plan_of,
)
from uotcell.ot._annealing import ladder
from uotcell.ot._extend import structured_coupling
from uotcell.ot._geodesic import Geodesic
from uotcell.ot._geometry import mean_squared_distance
from uotcell.ot._inputs import as_key, as_mass, as_points, on_device
from uotcell.ot._quadratic_coupling import QuadraticCost, QuadraticCoupling
from uotcell.ot._sampling import choose
from uotcell.ot._settings import check_count, check_masses, check_positive, check_solution, resolve_tau
from uotcell.ot._sinkhorn import Penalties, SinkhornSolution
from uotcell.ot._solve import pad, without_padding
from uotcell.ot._spaces import Linearisation, build_space
from uotcell.ot._starts import best_starts, descend, value

# Anchors per side of the small problem on which starts are compared.
COARSE_CELLS = 500
# Of their solutions, how many are followed on all anchors.
FOLLOWED = 3
# Bytes per pair of anchors: costs, plans and their products, of the solution at hand and of those it is compared with.
ANCHOR_BYTES = 128


def solve_quadratic(
    x: ArrayLike,
    y: ArrayLike,
    *,
    x_shared: ArrayLike | None = None,
    y_shared: ArrayLike | None = None,
    fused_weight: float | None = None,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    epsilon: float = 0.01,
    tau: float | tuple[float, float] | None = None,
    marginal_penalty: float | tuple[float, float] | None = None,
    cost: str | CostFn | Geodesic | tuple = "sqeuclidean",
    anchors: int | None = 1_000,
    n_starts: int = 17,
    max_iterations: int = 500,
    threshold: float = 1e-3,
    memory_limit: float | str | None = None,
    rng: jax.Array | int = 0,
) -> QuadraticCoupling:
    r"""Solve entropic unbalanced Gromov-Wasserstein transport between cells of two spaces.

    Minimises, with w = ``fused_weight``,
    ``∬ [(1−w) (d(x, x') − d(y, y'))² + w (c(x, y) + c(x', y'))] dπ dπ + ε KL(π⊗π | (a⊗b)⊗(a⊗b))``
    ``+ λ₁ KL(π1⊗π1 | a⊗a) + λ₂ KL(πᵀ1⊗πᵀ1 | b⊗b)`` with ``τᵢ = λᵢ/(λᵢ + ε)`` (Séjourné, Vialard & Peyré 2021;
    fused: Vayer et al. 2020). The distances d of each space are divided by their mean, the two parts of the cost by
    theirs, so no unit matters. The linear part stands inside the double integral, so that the shape of the plan does
    not depend on its mass, and w = 1 is :func:`uotcell.ot.solve_unbalanced` on the shared features, mass included
    where a and b have sum one.

    The problem is not convex: alternations from several starts at falling ε are compared on a few cells, and the best
    is followed on the anchors. Data that look the same when reflected have several equally good solutions.

    Parameters
    ----------
    x, y
        Source and target cells, shapes ``(n, d_x)`` and ``(m, d_y)``.
    x_shared, y_shared
        Features the spaces have in common, shapes ``(n, k)`` and ``(m, k)``, compared by squared Euclidean distance.
    fused_weight
        Weight of the shared features in [0, 1]; 0.5 by default where there are some. 0 is purely quadratic, 1 linear.
    a, b
        Prior masses, shapes ``(n,)`` and ``(m,)``; uniform with sum one by default. They are not normalised, and
        a cell of mass zero takes no part.
    epsilon
        Entropic regularisation, relative to the mean cost of the product plan.
    tau
        ``λ/(λ+ε)``, one number or one per side, in (0, 1]; 1 (the default) is balanced.
    marginal_penalty
        λ relative to the mean cost instead of ``tau``, one number or one per side; ``inf`` is balanced.
    cost
        Distance d within a space: ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"``, ``"geodesic"``, a symmetric ott
        ``CostFn`` or a :class:`uotcell.ot.Geodesic`; a tuple of two for one per space.
    anchors
        Solve on this many randomly chosen cells per side and extend the potentials to all of them; ``None`` solves on
        all.
    n_starts
        Starts that are compared: the product plan, then matches of leading principal coordinates.
    max_iterations
        Most linear problems per start, of at most a hundred Sinkhorn sweeps each.
    threshold
        Largest accepted L1 change of the plan of mass one from one linear problem to the next, and largest violation
        of the marginal optimality condition.
    memory_limit
        Memory this solve and later each call of the coupling may take, see :func:`uotcell.ot.solve_unbalanced`.
    rng
        Key or seed for choosing anchors and starts.

    Returns
    -------
    The solved coupling.

    Raises
    ------
    ValueError
        If an argument is out of range, or shared features are given for one side only.
    MemoryError
        If the costs between anchors, or what is kept of all cells, exceed ``memory_limit``.
    uotcell.ConvergenceError
        If the solve is not finite, not converged, or transports no mass.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> y = np.random.default_rng(0).gamma(1.0, size=(120, 3))
    >>> x = y @ np.array([[0.6, -0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0]])
    >>> coupling = uc.ot.solve_quadratic(x, y, tau=0.95)
    >>> coupling.push(x).shape, coupling.converged
    ((120, 3), True)
    """
    x, y = as_points(x, "x", nonempty=True), as_points(y, "y", nonempty=True)
    n_own = (x.shape[1], y.shape[1])
    x, y, weight = _with_shared(x, y, x_shared, y_shared, fused_weight)
    a, b = as_mass(a, "a", len(x)), as_mass(b, "b", len(y))
    check_positive("epsilon", epsilon)
    check_positive("threshold", threshold)
    counts = {"max_iterations": max_iterations, "n_starts": n_starts, "anchors": anchors}
    for name, count in counts.items():
        check_count(name, count)
    memory_limit = parse_memory(memory_limit)
    tau = resolve_tau(tau, marginal_penalty, epsilon)
    check_masses(tau, a, b)
    costs = cost if isinstance(cost, tuple) else (cost, cost)
    if len(costs) != 2:
        raise ValueError(f"Expected `cost` to be one cost or a tuple of two, found {len(costs)}.")
    rng_starts, *rng_anchors = jax.random.split(as_key(rng), 3)

    cells, masses = (x.astype(np.float64), y.astype(np.float64)), (a, b)
    shifts = [prior @ points / prior.sum() for points, prior in zip(cells, masses, strict=True)]
    # Shared features have one origin: only their differences count, and these must stay.
    shifts[1][n_own[1] :] = shifts[0][n_own[0] :]
    support = [np.flatnonzero(mass) for mass in masses]
    if anchors is not None:
        support = [choose(key, side, anchors) for key, side in zip(rng_anchors, support, strict=True)]
    n_anchors = max(len(rows) for rows in support)
    remedy = "Lower `anchors`"
    check_memory(ANCHOR_BYTES * n_anchors**2, memory_limit, f"the costs between {n_anchors:,} anchors a side", remedy)
    padded = [
        pad(rows, mass[rows] * (mass.sum() / mass[rows].sum())) for rows, mass in zip(support, masses, strict=True)
    ]
    orders, split = ([np.asarray(p[part]) for p in padded] for part in (0, 1))
    spaces, tables = [], []
    for points, shift, k, order, mass, cost_, name in zip(
        cells, shifts, n_own, orders, split, costs, "xy", strict=True
    ):
        own = (points - shift)[:, :k]
        space, table = build_space(own, order, mass, cost_, name, memory_limit)
        spaces.append(space)
        tables.append(table)
    rank = min(space.basis().shape[1] for space in spaces)
    # Numbers of every cell, float32, in blocks and then in one piece.
    what = f"the distances of {len(x):,} and {len(y):,} cells to {rank:,} anchors"
    remedy = "Lower `anchors`, or use squared Euclidean distances, which need none"
    check_memory(8 * (len(x) + len(y)) * rank, memory_limit, what, remedy)
    problem, shared_weight = _problem(cells, masses, n_own, orders, split, tables, weight)

    seed = np.random.default_rng(np.ravel(jax.random.key_data(rng_starts)))
    penalties = Penalties.of(tau)
    settings = {"penalties": penalties, "threshold": threshold, "max_outer": max_iterations}
    state = _solve(problem, n_starts, seed, epsilon=epsilon, **settings)
    minimum = float(objective(problem, state.plan, epsilon, penalties))
    mass = float(best_mass(minimum, a.sum(), b.sum(), epsilon, penalties))
    solution, offset = _at_mass(state, mass, epsilon, tau)
    solution = without_padding(solution, len(support[0]), len(support[1]))
    check_solution(solution, tau=tau, epsilon=epsilon, threshold=threshold, prior=np.sqrt(a.sum() * b.sum()))
    if not state.change <= threshold:
        raise ConvergenceError(
            f"The plan of the quadratic problem still changed by {float(state.change):.2g} of its mass after "
            f"{int(state.n_outer)} linear problems, expected at most {threshold:g}. Raise `max_iterations`, `epsilon` "
            "or `threshold`."
        )
    linearisation = Linearisation.at(
        state.reference, *spaces, weight=problem.weight, shared_weight=shared_weight, offset=offset
    )
    cost = QuadraticCost(linearisation, cells, shifts, n_own, memory_limit)
    return structured_coupling(
        QuadraticCoupling, cost, cells, masses, support, solution,
        shifts=shifts, anchored=any(len(rows) < np.count_nonzero(m) for rows, m in zip(support, masses, strict=True)),
        epsilon=float(epsilon), tau=tau, scale=1.0, fused_weight=weight, n_shared=x.shape[1] - n_own[0],
        objective=minimum, plan_change=float(state.change), n_outer=int(state.n_outer),
        memory_limit=memory_limit,
    )  # fmt: skip


def _with_shared(x, y, x_shared, y_shared, fused_weight):
    """Cells with their shared features appended, and the weight of these."""
    if (x_shared is None) != (y_shared is None):
        raise ValueError("Expected `x_shared` and `y_shared` together, found only one. Give both, or neither.")
    if fused_weight is not None and not 0 <= fused_weight <= 1:
        raise ValueError(f"Expected `fused_weight` to be in [0, 1], found {fused_weight}.")
    if x_shared is None:
        if fused_weight:
            raise ValueError(
                f"Expected `x_shared` and `y_shared` with `fused_weight` {fused_weight}, found none. Give the features "
                "both spaces have, or leave the weight out."
            )
        return x, y, 0.0
    x_shared, y_shared = as_points(x_shared, "x_shared"), as_points(y_shared, "y_shared")
    if x_shared.shape[1] != y_shared.shape[1] or (len(x_shared), len(y_shared)) != (len(x), len(y)):
        raise ValueError(
            f"Expected `x_shared` and `y_shared` to have shapes ({len(x)}, k) and ({len(y)}, k), found "
            f"{x_shared.shape} and {y_shared.shape}."
        )
    weight = 0.5 if fused_weight is None else float(fused_weight)
    return np.concatenate([x, x_shared], axis=1), np.concatenate([y, y_shared], axis=1), weight


def _problem(cells, masses, n_own, orders, split, tables, weight: float) -> tuple[QuadraticProblem, float]:
    """Costs on the anchors in units of their means, and the weight of one squared difference of shared features."""
    linear, shared_weight = np.zeros([len(order) for order in orders]), 0.0
    if weight > 0:
        shared = [points[:, k:] for points, k in zip(cells, n_own, strict=True)]
        scale = mean_squared_distance(*shared, *masses)
        # Of one value only rounding is left.
        if not scale > 1e-12 * max(np.mean(side**2) for side in shared):
            raise ValueError("Expected shared features to differ between cells, found one value. Leave them out.")
        shared_weight = weight / scale
        left, right = (side[order] for side, order in zip(shared, orders, strict=True))
        linear = shared_weight * sum((left[:, [i]] - right[:, i]) ** 2 for i in range(left.shape[1]))
    # Mean of (d − d')² over the product plan: distances have mean one.
    spread = sum(m @ table**2 @ m / m.sum() ** 2 for table, m in zip(tables, split, strict=True)) - 2
    arrays = (*tables, linear, *split, (1 - weight) / spread)
    return QuadraticProblem(*(on_device(array) for array in arrays)), shared_weight


def _solve(problem: QuadraticProblem, n_starts: int, rng: np.random.Generator, *, epsilon, penalties, **settings):
    """Find good solutions on few anchors, follow them on all, and return the best."""
    settings = {"penalties": penalties, **settings}
    n, m = problem.linear.shape
    if max(n, m) <= COARSE_CELLS:
        return best_starts(problem, n_starts, rng, epsilon=epsilon, **settings)[0]
    i, j = (np.sort(rng.permutation(size)[:COARSE_CELLS]) for size in (n, m))
    a, b = problem.a[i], problem.b[j]
    few = QuadraticProblem(
        problem.source[np.ix_(i, i)], problem.target[np.ix_(j, j)], problem.linear[np.ix_(i, j)],
        a * (problem.a.sum() / a.sum()), b * (problem.b.sum() / b.sum()), problem.weight,
    )  # fmt: skip
    # The plan of few anchors gives all of them a cost: inner sums over the few, outer rows and columns of all.
    wide = problem._replace(source=problem.source[:, i], target=problem.target[:, j])
    found = []
    for coarse in best_starts(few, n_starts, rng, epsilon=epsilon, **settings)[:FOLLOWED]:
        cost = linearised_cost(wide, coarse.plan) + coarse.offset
        inner = {"epsilon": np.float32(epsilon), "penalties": penalties, "threshold": settings["threshold"]}
        plan, solution = plan_of(cost, problem.a, problem.b, **inner, max_sweeps=INNER_SWEEPS)
        start = coarse._replace(solution=solution)
        found.append(descend(problem, plan, ladder(2.5 * epsilon, epsilon), state=start, **settings))
    return min(found, key=lambda state: value(problem, state, epsilon, penalties))


def _at_mass(state, mass: float, epsilon: float, tau: tuple[float, float]) -> tuple[SinkhornSolution, float]:
    """Potentials, weights and constant of the linear problem whose plan has the given mass.

    Raising the cost by δ scales the plan by exp(−δ/(ε + λ₁ + λ₂)) and moves potentials by fixed shares of δ.
    """
    solution, offset = state.solution._replace(n_iters=state.n_sweeps), float(state.offset)
    if 1.0 in tau:
        return solution, offset
    total_penalty = epsilon * (1 + sum(side / (1 - side) for side in tau))
    found = float(solution.source_weights.sum())
    with np.errstate(divide="ignore"):  # a plan of no mass is refused by the check that follows
        raised = total_penalty * float(np.log(found) - np.log(mass))
    rest = 1 - tau[0] * tau[1]
    moved = solution._replace(
        f=solution.f + tau[0] * (1 - tau[1]) / rest * raised,
        g=solution.g + tau[1] * (1 - tau[0]) / rest * raised,
        source_weights=solution.source_weights * (mass / found),
        target_weights=solution.target_weights * (mass / found),
    )
    return moved, offset + raised
