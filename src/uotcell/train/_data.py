"""Cells on the device, split and ready to be drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from ott.geometry.costs import CostFn

from uotcell.methods import Batch, PairSummary
from uotcell.ot import Coupling, QuadraticCoupling, UnbalancedCoupling
from uotcell.ot._geometry import PointGeometry
from uotcell.ot._inputs import on_device
from uotcell.ot._quadratic_batch import QuadraticReference, quadratic_batch
from uotcell.ot._sampling import AliasTable, alias_table, draw, draw_columns
from uotcell.ot._sinkhorn import Penalties, sinkhorn

# Cells per side from which methods take units of cost.
PRIOR_CELLS = 512
# Target cells kept for every source cell, at even steps of its row of the plan, for methods that train on pairs.
POOL_SIZE = 128
BATCH_SWEEPS, BATCH_THRESHOLD = 2_000, 1e-3
# A quadratic batch is an alternation, which comes closer ever more slowly; most batches need few of these problems.
QUADRATIC_OUTER, QUADRATIC_THRESHOLD = 200, 1e-2


class Frame(NamedTuple):
    """Coordinates of training, ``(cells − shift) / scale`` on each side; one and the same where sides share a space."""

    shift: Any
    scale: Any
    target_shift: Any
    target_scale: Any

    def source(self, x):
        """Source cells in the coordinates of training."""
        return (x - self.shift) / self.scale

    def target(self, y):
        """Target cells in the coordinates of training."""
        return (y - self.target_shift) / self.target_scale


class TrainingData(NamedTuple):
    """Training cells, padded so that pairs of similar size share compiled programs.

    ``x, y`` are in the coupling's coordinates; training sees them in ``frame``. The tables draw rows in proportion to
    the rescaled weights, or to the prior masses when batches are rescaled one by one. ``partners`` holds a pool of
    target rows for every source row, for methods that train on pairs; without any it has no column.
    """

    x: jax.Array
    y: jax.Array
    source_table: AliasTable
    target_table: AliasTable
    partners: jax.Array
    frame: Frame


class HeldOut(NamedTuple):
    """Held-out cells in the coordinates of training, with rescaled weights; rows of zero weight are padding."""

    x: jax.Array
    y: jax.Array
    a: jax.Array
    b: jax.Array


class BatchProblem(NamedTuple):
    """What every batch is rescaled with when ``rescaling="minibatch"``: the pair's cost, scale, ε, λ/ε and masses."""

    cost_fn: CostFn
    cost_scale: jax.Array
    epsilon: jax.Array
    penalties: Penalties
    mass: tuple[jax.Array, jax.Array]

    @classmethod
    def of(cls, coupling: Coupling) -> BatchProblem | QuadraticReference:
        """Take the problem of a coupling.

        Raises
        ------
        ValueError
            If its cost is no function of two cells.
        """
        if isinstance(coupling, QuadraticCoupling):
            return QuadraticReference.of(coupling)
        if not isinstance(coupling, UnbalancedCoupling):
            raise ValueError(
                "Expected a cost that is a function of two cells with rescaling='minibatch', found paths through all "
                "of them. Use rescaling='global'."
            )
        penalties, mass = Penalties.of(coupling.tau), (coupling.a.sum(), coupling.b.sum())
        return cls(coupling.cost_fn, coupling.scale, coupling.epsilon, penalties, mass)


class BatchCoupling(NamedTuple):
    """Solved coupling of a batch: marginals, a function from row numbers to rows of the plan, and the error reached.

    Rows are logarithms up to a constant.
    """

    source_weights: jax.Array
    target_weights: jax.Array
    log_rows: Callable[[jax.Array], jax.Array]
    marginal_error: jax.Array


def split_rows(rng: jax.Array, n: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``n`` cells to train on and to hold out, each ascending."""
    n_held_out = round(fraction * n)
    # By numpy: jax would compile a shuffle for every number of cells.
    order = np.random.default_rng(np.ravel(jax.random.key_data(rng))).permutation(n)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def training_data(
    coupling: Coupling,
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    rescaling: str,
    samples: str = "marginals",
    sizes: tuple[int, int] | None = None,
    rng: jax.Array | None = None,
) -> tuple[TrainingData, PairSummary, Frame]:
    """Put the given cells on the device, padded to ``sizes``.

    Returns them with what a method may know of the pair, and the frame that leads back to the original coordinates.
    """
    x, y = np.asarray(coupling.x)[rows], np.asarray(coupling.y)[columns]
    a, b = np.asarray(coupling.source_weights)[rows], np.asarray(coupling.target_weights)[columns]
    prior = np.asarray(coupling.a)[rows], np.asarray(coupling.b)[columns]
    (mean_x, cov_x), (mean_y, cov_y) = _moments(x, a), _moments(y, b)
    if coupling.same_space:
        shift = (mean_x + mean_y) / 2
        scale = float(np.sqrt((np.trace(cov_x) + np.trace(cov_y)) / (2 * len(shift))))
        # Measures without spread (one cell each) leave no scale to take; their distance, or one, will do.
        scale = scale or float(np.linalg.norm(mean_x - mean_y)) or 1.0
        frame = Frame(shift, scale, shift, scale)
    else:
        frame = Frame(mean_x, _spread(cov_x), mean_y, _spread(cov_y))
    summary = PairSummary(
        frame.source(mean_x),
        cov_x / frame.scale**2,
        frame.target(mean_y),
        cov_y / frame.target_scale**2,
        tuple(_effective_size(weights) for weights in (a, b)),
        (frame.source(_systematic_draw(x, prior[0])), frame.target(_systematic_draw(y, prior[1]))),
        frame.shift + coupling.shift,
        frame.scale,
    )
    if rescaling == "minibatch":
        a, b = prior
    sizes = (bucket(len(rows)), bucket(len(columns))) if sizes is None else sizes
    if samples == "pairs" and rescaling == "global":
        pool = coupling.sample_partners(rng, rows, columns, POOL_SIZE)
    else:
        pool = np.zeros((len(rows), 0), np.int32)
    data = TrainingData(
        *(pad(points, size) for points, size in zip((x, y), sizes, strict=True)),
        *(alias_table(mass, size=size) for mass, size in zip((a, b), sizes, strict=True)),
        pad(pool, sizes[0]),
        Frame(*(on_device(part) for part in frame)),
    )
    original = frame._replace(
        shift=frame.shift + coupling.shift, target_shift=frame.target_shift + coupling.target_shift
    )
    return data, summary, original


def held_out(
    points: Sequence[np.ndarray], weights: Sequence[np.ndarray], data: TrainingData, sizes: tuple[int, int]
) -> HeldOut:
    """Put cells of both sides, in the coupling's coordinates, on the device with their weights."""
    frame = Frame(*(np.asarray(part) for part in data.frame))
    (x, y), (a, b) = ([_padded(*side) for side in zip(arrays, sizes, strict=True)] for arrays in (points, weights))
    return HeldOut(*(on_device(array) for array in (frame.source(x), frame.target(y), a, b)))


def draw_global(rng: jax.Array, data: TrainingData, shape: tuple[int, int]) -> Batch:
    """Draw batches from the rescaled measures: table look-ups."""
    rng_source, rng_target = jax.random.split(rng)
    x, y = data.x[draw(rng_source, data.source_table, shape)], data.y[draw(rng_target, data.target_table, shape)]
    return Batch(data.frame.source(x), data.frame.target(y))


def draw_pairs(rng: jax.Array, data: TrainingData, shape: tuple[int, int]) -> Batch:
    """Draw batches of pairs from the plan: a source cell by its weight, then one of its pool."""
    rng_source, rng_partner = jax.random.split(rng)
    rows = draw(rng_source, data.source_table, shape)
    columns = data.partners[rows, jax.random.randint(rng_partner, shape, 0, data.partners.shape[-1])]
    return Batch(data.frame.source(data.x[rows]), data.frame.target(data.y[columns]))


def draw_minibatch(
    rng: jax.Array,
    data: TrainingData,
    shape: tuple[int, int],
    problem: BatchProblem,
    samples: str,
) -> tuple[Batch, jax.Array]:
    """Draw batches from the prior measures and resample each by a coupling of its own, as published.

    Returns the batches, pairs or independent draws, and the largest marginal error of their couplings.
    """
    n_batches, batch_size = shape

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        rng_x, rng_y, rng_row, rng_column = jax.random.split(key, 4)
        x = data.x[draw(rng_x, data.source_table, (batch_size,))]
        y = data.y[draw(rng_y, data.target_table, (batch_size,))]
        solution = couple_batch(x, y, problem)
        rows = jax.random.categorical(rng_row, jnp.log(solution.source_weights), shape=(batch_size,))
        if samples == "pairs":
            columns = draw_columns(jax.random.uniform(rng_column, (batch_size, 1)), solution.log_rows(rows))
        else:
            columns = jax.random.categorical(rng_column, jnp.log(solution.target_weights), shape=(batch_size,))
        return x[rows], y[columns], solution.marginal_error

    x, y, errors = jax.lax.map(one, jax.random.split(rng, n_batches))
    return Batch(data.frame.source(x), data.frame.target(y)), errors.max()


def couple_batch(x: jax.Array, y: jax.Array, problem: BatchProblem | QuadraticReference) -> BatchCoupling:
    """Solve the coupling of a batch drawn from the prior measures."""
    if isinstance(problem, QuadraticReference):
        solved = quadratic_batch(x, y, problem, threshold=QUADRATIC_THRESHOLD, max_outer=QUADRATIC_OUTER)
        weights = (jnp.exp(logsumexp(solved.log_plan, axis=axis)) for axis in (1, 0))
        return BatchCoupling(*weights, lambda rows: solved.log_plan[rows], jnp.maximum(*solved[1:]))
    a, b = (jnp.full(len(p), mass / len(p)) for p, mass in zip((x, y), problem.mass, strict=True))
    geometry = PointGeometry(x, y, a, b, problem.cost_fn, problem.cost_scale, problem.epsilon)
    solution = sinkhorn(geometry, penalties=problem.penalties, threshold=BATCH_THRESHOLD, max_iterations=BATCH_SWEEPS)
    return BatchCoupling(
        solution.source_weights,
        solution.target_weights,
        lambda rows: (solution.g - geometry.cost_rows(rows)) / problem.epsilon,
        solution.marginal_error,
    )


def _moments(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, weights = points.astype(np.float64), weights.astype(np.float64) / weights.sum(dtype=np.float64)
    mean = weights @ points
    return mean, (weights * (points - mean).T) @ (points - mean)


def _spread(cov: np.ndarray) -> float:
    """Root mean square spread per dimension; one where there is none."""
    return float(np.sqrt(np.trace(cov) / len(cov))) or 1.0


def _effective_size(weights: np.ndarray) -> float:
    weights = weights.astype(np.float64)
    return float(weights.sum() ** 2 / (weights**2).sum())


def _systematic_draw(cells: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Return at most ``PRIOR_CELLS`` cells in proportion to their mass, at even steps of the cumulative mass."""
    cumulative = np.cumsum(mass, dtype=np.float64)
    n = min(len(cells), PRIOR_CELLS)
    rows = np.searchsorted(cumulative, (np.arange(n) + 0.5) / n * cumulative[-1])
    return cells[np.minimum(rows, len(cells) - 1)]


def bucket(n: int) -> int:
    """Return the least power of two that is at least ``n``: sizes of one bucket share compiled programs."""
    return 1 << max(0, n - 1).bit_length()


def pad(array: np.ndarray, size: int) -> jax.Array:
    """Put an array on the device with rows of zeros behind it."""
    padded = _padded(array, size)
    return on_device(padded, padded.dtype)


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((size, *array.shape[1:]), np.int32 if array.dtype.kind == "i" else np.float32)
    out[: len(array)] = array
    return out
