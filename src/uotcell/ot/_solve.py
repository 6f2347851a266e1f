"""Solve an unbalanced transport problem once, for all later draws."""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn, Euclidean, SqEuclidean

from uotcell._memory import check_memory, memory_bytes, on_accelerator, parse_memory
from uotcell.ot._annealing import annealed_sinkhorn
from uotcell.ot._coupling import UnbalancedCoupling, default_tile
from uotcell.ot._extend import structured_coupling
from uotcell.ot._geodesic import Geodesic, GeodesicCost
from uotcell.ot._geometry import (
    DENSE_BYTES,
    DENSE_ENTRIES,
    PointGeometry,
    is_translation_invariant,
    log_kernel_sum,
    resolve_cost,
)
from uotcell.ot._inputs import as_float32, as_key, as_mass, as_points, on_device, padded_size
from uotcell.ot._sampling import choose
from uotcell.ot._scale import cost_scale, table_scale
from uotcell.ot._settings import check_count, check_masses, check_positive, check_solution, resolve_tau
from uotcell.ot._sinkhorn import SinkhornSolution
from uotcell.ot._structured import StructuredCoupling

# Bytes per path length at the peak of a geodesic solve, which holds and copies the table on host and device.
PATH_BYTES = 32
# Cells per side up to which clouds are padded: compiling takes seconds, longer than a solve of this size.
PADDED_CELLS = 4_096
# Cells per side of which the centre is taken.
CENTRE_CELLS = 4_096


def solve_unbalanced(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    epsilon: float = 0.01,
    tau: float | tuple[float, float] | None = None,
    marginal_penalty: float | tuple[float, float] | None = None,
    cost: str | CostFn | Geodesic = "sqeuclidean",
    scale_cost: str | float = "mean",
    max_iterations: int = 10_000,
    threshold: float = 1e-3,
    tile: int | None = None,
    anchors: int | None = None,
    memory_limit: float | str | None = None,
    rng: jax.Array | int = 0,
) -> UnbalancedCoupling | StructuredCoupling:
    r"""Solve entropic unbalanced optimal transport between two sets of cells.

    Minimises ``⟨C, π⟩ + ε KL(π | a⊗b) + λ₁ KL(π1 | a) + λ₂ KL(πᵀ1 | b)`` over non-negative plans, with
    ``τᵢ = λᵢ/(λᵢ + ε)``, by recentred Sinkhorn iterations (Séjourné et al. 2022).

    Parameters
    ----------
    x, y
        Source and target cells, shapes ``(n, d)`` and ``(m, d)``. Both are centred before distances are taken.
    a, b
        Prior masses, shapes ``(n,)`` and ``(m,)``; uniform with sum one by default. They are not normalised, and
        a cell of mass zero takes no part.
    epsilon
        Entropic regularisation in units of ``scale_cost``.
    tau
        ``λ/(λ+ε)``, one number or one per side, in (0, 1]; 1 (the default) is balanced. The same τ at another ε is
        another problem.
    marginal_penalty
        λ in units of ``scale_cost`` instead of ``tau``, one number or one per side; ``inf`` is balanced.
    cost
        ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"``, an ott ``CostFn``, or squared lengths of paths through the
        data: ``"geodesic"`` or a :class:`uotcell.ot.Geodesic`, for which all n × m costs are held.
    scale_cost
        ``"mean"`` (under a⊗b), ``"median"`` (not moved by a few far cells) or a number: the cost that counts as one.
    max_iterations
        Most Sinkhorn sweeps.
    threshold
        Largest accepted violation of the marginal optimality condition, as a share of the transported mass.
    tile
        Rows of the cost computed at a time. By default the whole matrix is kept if it fits into memory, on a CPU up to
        64 million entries; else tiles of at most about four million entries are used, on an accelerator of 64 million.
    anchors
        Solve on this many randomly chosen cells per side and extend the potentials to all of them.
    memory_limit
        Memory that this solve, and later each call of the coupling, may take beside the cells and what is held already:
        bytes, or a string such as ``"6GB"`` or ``"512MiB"``. By default three quarters of what is then free on the
        device; on a CPU, the least of what the machine, its control groups and a limit of the address space leave. It
        decides the size of blocks: results change with it by rounding only.
    rng
        Key or seed for choosing anchors and estimating a scale.

    Returns
    -------
    The solved coupling; of a geodesic cost, a :class:`uotcell.ot.StructuredCoupling`.

    Raises
    ------
    ValueError
        If an argument is out of range, or a geodesic cost finds its graph in parts.
    MemoryError
        If the path lengths of a geodesic cost, or the costs of a single cell, exceed ``memory_limit``.
    uotcell.ConvergenceError
        If the solve is not finite, not converged, or transports no mass.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> coupling = uc.ot.solve_unbalanced(x, x[:100] + 1, tau=0.95)
    >>> coupling.source_weights.shape, coupling.converged
    ((200,), True)
    """
    x = as_points(x, "x", nonempty=True)
    y = as_points(y, "y", dim=x.shape[1], nonempty=True)
    a, b = as_mass(a, "a", len(x)), as_mass(b, "b", len(y))
    check_positive("epsilon", epsilon)
    check_positive("threshold", threshold)
    for name, count in (("max_iterations", max_iterations), ("tile", tile), ("anchors", anchors)):
        check_count(name, count)
    memory_limit = parse_memory(memory_limit)
    tau = resolve_tau(tau, marginal_penalty, epsilon)
    check_masses(tau, a, b)
    if cost == "geodesic" or isinstance(cost, Geodesic):
        settings = {"epsilon": float(epsilon), "tau": tau, "threshold": threshold, "max_iterations": max_iterations}
        geodesic = Geodesic() if isinstance(cost, str) else cost
        settings |= {"scale_cost": scale_cost, "tile": tile, "anchors": anchors, "memory_limit": memory_limit}
        return _solve_geodesic(x, y, a, b, geodesic, **settings)
    cost_fn = resolve_cost(cost)
    rng_scale, *rng_anchors = jax.random.split(as_key(rng), 3)

    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    shift = _centre((x, y), (rows, columns)) if is_translation_invariant(cost_fn) else np.zeros(x.shape[1])
    x, y = as_float32((x, y), shift)
    scale = cost_scale(x, y, a, b, cost_fn, scale_cost, rng_scale)
    if isinstance(cost_fn, (SqEuclidean, Euclidean)):
        _check_far_cells((x, y), (a, b), tau, cost_fn, scale * epsilon)
    if anchors is not None:
        rows, columns = (choose(key, side, anchors) for key, side in zip(rng_anchors, (rows, columns), strict=True))
    mass_x, mass_y = a[rows] * (a.sum() / a[rows].sum()), b[columns] * (b.sum() / b[columns].sum())
    n_entries = len(rows) * len(columns)
    fits = DENSE_BYTES * n_entries <= memory_bytes(memory_limit) and (n_entries <= DENSE_ENTRIES or on_accelerator())
    if tile is None and not fits:
        tile = default_tile(len(columns), memory_limit, n_rows=len(rows))
    (points_x, split_x), (points_y, split_y) = pad(x[rows], mass_x), pad(y[columns], mass_y)
    geometry = PointGeometry(points_x, points_y, split_x, split_y, cost_fn, scale, epsilon, tile=tile)
    settings = {"epsilon": float(epsilon), "tau": tau, "threshold": threshold}
    solution = annealed_sinkhorn(geometry, max_iterations=max_iterations, **settings)
    solution = without_padding(solution, len(rows), len(columns))
    check_solution(solution, prior=np.sqrt(a.sum() * b.sum()), **settings)

    mass = float(np.asarray(solution.source_weights, np.float64).sum())
    kernel = {"cost_fn": cost_fn, "scale": scale, "epsilon": epsilon}
    limited = {"kernel": kernel, "memory_limit": memory_limit}
    f, source_weights = _extend(
        x, a, rows, mass_x, solution.f, solution.source_weights, tau=tau[0], mass=mass, **limited,
        support=y[columns], h=np.log(mass_y, dtype=np.float32) + solution.g / epsilon,
    )  # fmt: skip
    g, target_weights = _extend(
        y, b, columns, mass_y, solution.g, solution.target_weights, tau=tau[1], mass=mass, **limited,
        support=x[rows], h=np.log(mass_x, dtype=np.float32) + solution.f / epsilon,
    )  # fmt: skip
    return UnbalancedCoupling(
        x=on_device(x), y=on_device(y), a=on_device(a), b=on_device(b), f=f, g=g,
        epsilon=float(epsilon), tau=tau, scale=scale, cost_fn=cost_fn, shift=shift,
        anchors=None if anchors is None else (rows, columns),
        source_weights=source_weights, target_weights=target_weights,
        converged=True, n_iters=int(solution.n_iters), marginal_error=float(solution.marginal_error),
        memory_limit=memory_limit,
    )  # fmt: skip


def _solve_geodesic(
    x, y, a, b, geodesic: Geodesic, *, epsilon, tau, threshold, max_iterations, scale_cost, tile, anchors, memory_limit
) -> StructuredCoupling:
    """Solve on path lengths through the cells of both sides."""
    for name, value in (("tile", tile), ("anchors", anchors)):
        if value is not None:
            raise ValueError(
                f"Expected `{name}` to be None with a geodesic cost, which holds all path lengths, found {value}. "
                "Leave it out, and subsample cells if there are too many."
            )
    what = f"the path lengths between {len(x):,} and {len(y):,} cells, which a geodesic cost holds,"
    remedy = "Subsample the cells; others can be pushed all the same"
    check_memory(PATH_BYTES * len(x) * len(y), memory_limit, what, remedy)
    x, y = x.astype(np.float64), y.astype(np.float64)
    cost = GeodesicCost(x, y, geodesic)
    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    table = cost.seen_rows(rows, columns)
    scale = table_scale(table, a[rows], b[columns], scale_cost)
    (order_x, mass_x), (order_y, mass_y) = pad(np.arange(len(rows)), a[rows]), pad(np.arange(len(columns)), b[columns])
    padded = on_device(table[np.ix_(order_x, order_y)] / scale)
    geometry = PointGeometry.from_cost(padded, mass_x, mass_y, epsilon)
    settings = {"epsilon": epsilon, "tau": tau, "threshold": threshold}
    solution = annealed_sinkhorn(geometry, max_iterations=max_iterations, **settings)
    solution = without_padding(solution, len(rows), len(columns))
    check_solution(solution, prior=np.sqrt(a.sum() * b.sum()), **settings)
    return structured_coupling(
        StructuredCoupling, cost, (x, y), (a, b), (rows, columns), solution, anchored=False, epsilon=epsilon, tau=tau,
        scale=scale, memory_limit=memory_limit,
    )  # fmt: skip


def _centre(cells, support) -> np.ndarray:
    """Median of some cells of both sides: a far cell would carry the mean away from all others."""
    some = [points[rows[:: -(-len(rows) // CENTRE_CELLS)]] for points, rows in zip(cells, support, strict=True)]
    return np.median(np.concatenate(some).astype(np.float64), axis=0)


def _check_far_cells(cells, masses, tau: tuple[float, float], cost_fn: CostFn, blur: float) -> None:
    """Raise if cells are so far out that float32 rounds their costs by more than the blur, and it matters.

    It does not where they lose their mass: on one side alone, if that is not balanced.
    """
    far = []
    for points, mass in zip(cells, masses, strict=True):
        cost = np.einsum("ij,ij->i", points, points, dtype=np.float64)
        cost = np.sqrt(cost) if isinstance(cost_fn, Euclidean) else cost
        far.append(np.flatnonzero((cost * np.finfo(np.float32).eps > blur) & (mass > 0)))
    both = all(len(rows) for rows in far)
    for name, rows, t in zip("xy", far, tau, strict=True):
        if len(rows) and (both or t == 1):
            raise ValueError(
                f"Expected cells whose costs float32 resolves to `epsilon`, found {len(rows)} of `{name}` too far from "
                f"the others (first: row {rows[0]}). Remove them, raise `epsilon`, or, where the other side has none, "
                "let their mass change with `tau` below 1."
            )


def pad(points: np.ndarray, mass: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Repeat the first cells until the cloud has a size that others share; a cell and its copy halve its mass.

    In the KL(π | a⊗b) convention splitting a cell changes nothing but where its mass is written down.
    """
    n_copies = padded_size(len(points)) - len(points) if len(points) <= PADDED_CELLS else 0
    mass = np.asarray(mass, np.float32).copy()
    mass[:n_copies] /= 2
    copies = (np.concatenate([array, array[:n_copies]]) for array in (np.asarray(points), mass))
    return tuple(on_device(array, array.dtype) for array in copies)


def without_padding(solution: SinkhornSolution, n: int, m: int) -> SinkhornSolution:
    """Drop the copies and give their weights back."""

    def merged(weights: jax.Array, n: int) -> np.ndarray:
        weights = np.array(weights)
        weights[: len(weights) - n] += weights[n:]
        return weights[:n]

    return solution._replace(
        f=np.asarray(solution.f)[:n],
        g=np.asarray(solution.g)[:m],
        source_weights=merged(solution.source_weights, n),
        target_weights=merged(solution.target_weights, m),
    )


def _extend(points, prior, rows, mass_rows, potential, weights, *, tau, mass, kernel, memory_limit, support, h):
    """Potentials and weights of all cells of a side from those the problem was solved on."""
    rest = np.setdiff1d(np.arange(len(points)), rows)
    all_potentials, all_weights = np.zeros(len(points), np.float32), np.zeros(len(points))
    all_potentials[rows] = potential
    all_weights[rows] = np.asarray(weights) * (prior[rows] / mass_rows)
    if len(rest):
        tile = default_tile(len(support), memory_limit)
        total = log_kernel_sum(points[rest], support, h, **kernel, tile=tile)
        all_potentials[rest] = -tau * kernel["epsilon"] * np.asarray(total)
        all_weights[rest] = prior[rest] * np.exp(-all_potentials[rest] * (1.0 - tau) / (tau * kernel["epsilon"]))
        # The extension is exact for the anchors' plan; over all cells its mass carries sampling error.
        all_weights *= mass / all_weights.sum()
    return on_device(all_potentials), on_device(all_weights)
