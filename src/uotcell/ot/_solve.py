"""Solve an unbalanced transport problem once, for all later draws."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn, SqEuclidean, TICost

from uotcell._errors import ConvergenceError
from uotcell.ot._coupling import UnbalancedCoupling, default_tile
from uotcell.ot._geometry import PointGeometry, log_kernel_sum, mean_squared_distance, pairwise_cost, resolve_cost
from uotcell.ot._inputs import as_key, as_mass, as_points, padded_size
from uotcell.ot._sinkhorn import SinkhornSolution, inverse_penalty, sinkhorn

# A dense cost matrix is kept up to this many entries (256 MB in float32); above, costs are computed in tiles.
DENSE_ENTRIES = 64_000_000
# Cells per side from which the scale of a cost without a closed form is estimated.
SCALE_CELLS = 4_096
MASSLESS = 1e-6
# Cells per side up to which clouds are padded: compiling takes seconds, longer than a solve of this size.
PADDED_CELLS = 4_096


def solve_unbalanced(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    epsilon: float = 0.01,
    tau: float | tuple[float, float] | None = None,
    marginal_penalty: float | tuple[float, float] | None = None,
    cost: str | CostFn = "sqeuclidean",
    scale_cost: str | float = "mean",
    max_iterations: int = 10_000,
    threshold: float = 1e-3,
    tile: int | None = None,
    anchors: int | None = None,
    rng: jax.Array | int = 0,
) -> UnbalancedCoupling:
    r"""Solve entropic unbalanced optimal transport between two sets of cells.

    Minimises ``⟨C, π⟩ + ε KL(π | a⊗b) + λ₁ KL(π1 | a) + λ₂ KL(πᵀ1 | b)`` over non-negative plans, with
    ``τᵢ = λᵢ/(λᵢ + ε)``, by ott-jax's recentred Sinkhorn iterations.

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
        ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"`` or an ott ``CostFn``.
    scale_cost
        ``"mean"`` (under a⊗b), ``"median"`` (not moved by a few far cells) or a number: the cost that counts as one.
    max_iterations
        Most Sinkhorn sweeps.
    threshold
        Largest accepted violation of the marginal optimality condition, as a share of the transported mass.
    tile
        Rows of the cost computed at a time. By default the whole matrix is kept up to 64 million entries and tiles
        of about four million entries are used above.
    anchors
        Solve on this many randomly chosen cells per side and extend the potentials to all of them.
    rng
        Key or seed for choosing anchors and estimating a scale.

    Returns
    -------
    The solved coupling.

    Raises
    ------
    ValueError
        If an argument is out of range.
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
    x = as_points(x, "x")
    y = as_points(y, "y", dim=x.shape[1])
    a, b = as_mass(a, "a", len(x)), as_mass(b, "b", len(y))
    _check_positive("epsilon", epsilon)
    _check_positive("threshold", threshold)
    for name, count in (("max_iterations", max_iterations), ("tile", tile), ("anchors", anchors)):
        if count is not None and (not isinstance(count, (int, np.integer)) or count < 1):
            raise ValueError(f"Expected `{name}` to be a positive integer, found {count!r}.")
    tau = resolve_tau(tau, marginal_penalty, epsilon)
    if tau == (1.0, 1.0) and not np.isclose(a.sum(), b.sum(), rtol=1e-4):
        raise ValueError(
            f"Expected `a` and `b` to have equal sums in a balanced problem, found {a.sum():.4g} and {b.sum():.4g}. "
            "Normalise them, or let mass change with `tau` below 1."
        )
    cost_fn = resolve_cost(cost)
    rng_scale, *rng_anchors = jax.random.split(as_key(rng), 3)

    shift = (a @ x / a.sum() + b @ y / b.sum()) / 2 if isinstance(cost_fn, TICost) else np.zeros(x.shape[1])
    x, y = (np.asarray(points - shift, np.float32) for points in (x, y))
    scale = cost_scale(x, y, a, b, cost_fn, scale_cost, rng_scale)

    rows, columns = np.flatnonzero(a), np.flatnonzero(b)
    if anchors is not None:
        rows, columns = (_choose(key, side, anchors) for key, side in zip(rng_anchors, (rows, columns), strict=True))
    mass_x, mass_y = a[rows] * (a.sum() / a[rows].sum()), b[columns] * (b.sum() / b[columns].sum())
    if tile is None and len(rows) * len(columns) > DENSE_ENTRIES:
        tile = default_tile(len(columns))
    (points_x, split_x), (points_y, split_y) = _pad(x[rows], mass_x), _pad(y[columns], mass_y)
    geometry = PointGeometry(points_x, points_y, split_x, split_y, cost_fn, scale, epsilon, tile=tile)
    solution = sinkhorn(geometry, tau=tau, threshold=threshold, max_iterations=max_iterations)
    solution = _without_padding(solution, len(rows), len(columns))
    _check_solution(solution, tau=tau, epsilon=epsilon, threshold=threshold, prior=np.sqrt(a.sum() * b.sum()))

    mass = float(np.asarray(solution.source_weights, np.float64).sum())
    kernel = {"cost_fn": cost_fn, "scale": scale, "epsilon": epsilon}
    f, source_weights = _extend(
        x, a, rows, mass_x, solution.f, solution.source_weights, tau=tau[0], mass=mass, kernel=kernel,
        support=y[columns], h=np.log(mass_y, dtype=np.float32) + solution.g / epsilon,
    )  # fmt: skip
    g, target_weights = _extend(
        y, b, columns, mass_y, solution.g, solution.target_weights, tau=tau[1], mass=mass, kernel=kernel,
        support=x[rows], h=np.log(mass_x, dtype=np.float32) + solution.f / epsilon,
    )  # fmt: skip
    return UnbalancedCoupling(
        x=jnp.asarray(x), y=jnp.asarray(y), a=jnp.asarray(a, jnp.float32), b=jnp.asarray(b, jnp.float32), f=f, g=g,
        epsilon=float(epsilon), tau=tau, scale=scale, cost_fn=cost_fn, shift=shift,
        anchors=None if anchors is None else (rows, columns),
        source_weights=source_weights, target_weights=target_weights,
        converged=True, n_iters=int(solution.n_iters), marginal_error=float(solution.marginal_error),
    )  # fmt: skip


def resolve_tau(tau, marginal_penalty, epsilon: float) -> tuple[float, float]:
    """Return τ per side from exactly one of τ and λ; balanced when neither is given."""
    if tau is not None and marginal_penalty is not None:
        raise ValueError(
            f"Expected one of `tau` and `marginal_penalty`, found both ({tau} and {marginal_penalty}). "
            "They are two names for one choice: tau = penalty / (penalty + epsilon)."
        )
    name, given = ("tau", tau) if marginal_penalty is None else ("marginal_penalty", marginal_penalty)
    try:
        sides = (1.0, 1.0) if given is None else np.broadcast_to(np.asarray(given, dtype=float), (2,)).tolist()
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected `{name}` to be one number or one per side, found {given!r}.") from error
    if marginal_penalty is not None:
        if not all(side > 0 for side in sides):
            raise ValueError(f"Expected `marginal_penalty` to be positive (inf is balanced), found {given}.")
        return tuple(1.0 if np.isinf(side) else side / (side + epsilon) for side in sides)
    if not all(0 < side <= 1 for side in sides):
        raise ValueError(
            f"Expected `{name}` to be in (0, 1], found {given}. 1 keeps all mass; lower lets more mass be created "
            "and destroyed (0.9 to 0.99 is usual)."
        )
    return tuple(sides)


def cost_scale(x, y, a, b, cost_fn: CostFn, scale_cost: str | float, rng: jax.Array) -> float:
    """Return the cost that counts as one."""
    if not isinstance(scale_cost, str):
        _check_positive("scale_cost", scale_cost)
        return float(scale_cost)
    if scale_cost not in ("mean", "median"):
        raise ValueError(f"Expected `scale_cost` to be 'mean', 'median' or a positive number, found {scale_cost!r}.")
    keys = jax.random.split(rng)
    i, j = (_choose(key, np.flatnonzero(m), SCALE_CELLS) for key, m in zip(keys, (a, b), strict=True))
    if scale_cost == "mean" and isinstance(cost_fn, SqEuclidean):
        scale = mean_squared_distance(x, y, a, b)
    else:
        cost = np.asarray(pairwise_cost(cost_fn, x[i], y[j]), np.float64)
        mean = float(a[i] @ cost @ b[j] / (a[i].sum() * b[j].sum()))
        scale = mean if scale_cost == "mean" else float(np.median(cost))
    if not float(np.finfo(np.float32).tiny) <= scale <= float(np.finfo(np.float32).max):
        raise ValueError(
            f"Expected a positive {scale_cost} cost between source and target, found {scale:.3g}: all their cells "
            "coincide or the values overflow float32. Check the representation, or give `scale_cost` a number."
        )
    if scale_cost == "mean":
        _warn_if_few_cells_set_the_scale(scale, x, y, i, j, cost_fn)
    return scale


def _warn_if_few_cells_set_the_scale(scale: float, x, y, i, j, cost_fn: CostFn) -> None:
    """Warn when far cells, not the bulk, decide what one unit of cost is."""
    # Of one size, whatever the data, so that this is compiled once.
    x, y = (jnp.asarray(points[np.resize(rows, 512)], jnp.float32) for points, rows in ((x, i), (y, j)))
    median = float(jnp.median(pairwise_cost(cost_fn, x, y)))
    if scale > 5 * median:
        warnings.warn(
            f"The mean cost ({scale:.3g}) is more than five times the median ({median:.3g}): a few far cells set the "
            "scale of `epsilon` for all others. Remove these cells or use scale_cost='median'.",
            stacklevel=4,
        )


def _choose(rng: jax.Array, candidates: np.ndarray, n: int) -> np.ndarray:
    """Return at most ``n`` of the candidates, without replacement, in ascending order."""
    if n >= len(candidates):
        return candidates
    return np.sort(candidates[np.asarray(jax.random.permutation(rng, len(candidates)))[:n]])


def _pad(points: np.ndarray, mass: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Repeat the first cells until the cloud has a size that others share; a cell and its copy halve its mass.

    In the KL(π | a⊗b) convention splitting a cell changes nothing but where its mass is written down.
    """
    n_copies = padded_size(len(points)) - len(points) if len(points) <= PADDED_CELLS else 0
    mass = np.asarray(mass, np.float32).copy()
    mass[:n_copies] /= 2
    copies = (np.concatenate([array, array[:n_copies]]) for array in (np.asarray(points), mass))
    return tuple(jnp.asarray(array) for array in copies)


def _without_padding(solution: SinkhornSolution, n: int, m: int) -> SinkhornSolution:
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


def _extend(points, prior, rows, mass_rows, potential, weights, *, tau, mass, kernel, support, h):
    """Potentials and weights of all cells of a side from those the problem was solved on."""
    rest = np.setdiff1d(np.arange(len(points)), rows)
    all_potentials, all_weights = np.zeros(len(points), np.float32), np.zeros(len(points))
    all_potentials[rows] = potential
    all_weights[rows] = np.asarray(weights) * (prior[rows] / mass_rows)
    if len(rest):
        total = log_kernel_sum(points[rest], support, h, **kernel, tile=default_tile(len(support)))
        all_potentials[rest] = -tau * kernel["epsilon"] * np.asarray(total)
        all_weights[rest] = prior[rest] * np.exp(-all_potentials[rest] * inverse_penalty(tau, kernel["epsilon"]))
        # The extension is exact for the anchors' plan; over all cells its mass carries sampling error.
        all_weights *= mass / all_weights.sum()
    return jnp.asarray(all_potentials), jnp.asarray(all_weights, jnp.float32)


def _check_positive(name: str, value: float) -> None:
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (is_number and np.isfinite(value) and value > 0):
        raise ValueError(f"Expected `{name}` to be a positive number, found {value!r}.")


def _check_solution(solution, *, tau, epsilon: float, threshold: float, prior: float) -> None:
    """Raise unless the solve is finite, converged, and transports mass."""
    mass, error, n_iters = float(solution.source_weights.sum()), float(solution.marginal_error), int(solution.n_iters)
    setting = f"epsilon={epsilon:g}, tau=({tau[0]:g}, {tau[1]:g})"
    if mass < MASSLESS * prior:
        raise ConvergenceError(
            f"The unbalanced problem with {setting} transports {mass:.2g} of a mass of {prior:.2g}: destroying cells "
            "costs less than moving them. Raise `tau` or `epsilon`."
        )
    if not np.isfinite([mass, error]).all():
        raise ConvergenceError(
            f"The unbalanced problem with {setting} gave non-finite weights after {n_iters} sweeps. Remove far "
            "outliers, or raise `epsilon` or `tau`."
        )
    if error > threshold:
        raise ConvergenceError(
            f"The unbalanced problem with {setting} is {error:.2g} from its optimality condition after {n_iters} "
            f"sweeps, expected at most {threshold:g}. Raise `epsilon` or lower `tau`; with `solve_unbalanced`, "
            "`max_iterations` and `threshold` can be raised too."
        )
