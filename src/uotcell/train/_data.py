"""Cells on the device, split and ready to be drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry.costs import CostFn

from uotcell.methods import Batch, PairSummary
from uotcell.ot import UnbalancedCoupling
from uotcell.ot._geometry import PointGeometry
from uotcell.ot._sampling import AliasTable, alias_table, draw
from uotcell.ot._sinkhorn import sinkhorn

# Cells per side from which methods take units of cost.
PRIOR_CELLS = 512
BATCH_SWEEPS, BATCH_THRESHOLD = 2_000, 1e-3


class TrainingData(NamedTuple):
    """Training cells, padded so that pairs of similar size share compiled programs.

    ``x, y`` are in the coupling's coordinates; training sees ``(x − shift) / scale``. The tables draw rows in
    proportion to the rescaled weights, or to the prior masses when batches are rescaled one by one.
    """

    x: jax.Array
    y: jax.Array
    source_table: AliasTable
    target_table: AliasTable
    shift: jax.Array
    scale: jax.Array


class HeldOut(NamedTuple):
    """Held-out cells in the coordinates of training, with rescaled weights; rows of zero weight are padding."""

    x: jax.Array
    y: jax.Array
    a: jax.Array
    b: jax.Array


class BatchProblem(NamedTuple):
    """What every batch is rescaled with when ``rescaling="minibatch"``: the pair's own cost, scale, ε and masses."""

    cost_fn: CostFn
    cost_scale: jax.Array
    epsilon: jax.Array
    mass: tuple[jax.Array, jax.Array]

    @classmethod
    def of(cls, coupling: UnbalancedCoupling) -> BatchProblem:
        """Take the problem of a coupling."""
        return cls(coupling.cost_fn, coupling.scale, coupling.epsilon, (coupling.a.sum(), coupling.b.sum()))


def split_rows(rng: jax.Array, n: int, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``n`` cells to train on and to hold out, each ascending."""
    n_held_out = round(fraction * n)
    # By numpy: jax would compile a shuffle for every number of cells.
    order = np.random.default_rng(np.ravel(jax.random.key_data(rng))).permutation(n)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def training_data(
    coupling: UnbalancedCoupling,
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    rescaling: str,
    sizes: tuple[int, int] | None = None,
) -> tuple[TrainingData, PairSummary]:
    """Put the given cells on the device, padded to ``sizes``; return them with what a method may know of the pair."""
    x, y = np.asarray(coupling.x)[rows], np.asarray(coupling.y)[columns]
    a, b = np.asarray(coupling.source_weights)[rows], np.asarray(coupling.target_weights)[columns]
    prior = np.asarray(coupling.a)[rows], np.asarray(coupling.b)[columns]
    (mean_x, cov_x), (mean_y, cov_y) = _moments(x, a), _moments(y, b)
    shift = (mean_x + mean_y) / 2
    scale = float(np.sqrt((np.trace(cov_x) + np.trace(cov_y)) / (2 * len(shift))))
    # Measures without spread (one cell each) leave no scale to take; their distance, or one, will do.
    scale = scale or float(np.linalg.norm(mean_x - mean_y)) or 1.0
    summary = PairSummary(
        (mean_x - shift) / scale,
        cov_x / scale**2,
        (mean_y - shift) / scale,
        cov_y / scale**2,
        tuple(_effective_size(weights) for weights in (a, b)),
        tuple((_systematic_draw(cells, mass) - shift) / scale for cells, mass in zip((x, y), prior, strict=True)),
        shift + coupling.shift,
        scale,
    )
    if rescaling == "minibatch":
        a, b = prior
    sizes = (bucket(len(rows)), bucket(len(columns))) if sizes is None else sizes
    data = TrainingData(
        *(_pad(points, size) for points, size in zip((x, y), sizes, strict=True)),
        *(alias_table(mass, size=size) for mass, size in zip((a, b), sizes, strict=True)),
        jnp.asarray(shift, jnp.float32),
        jnp.asarray(scale, jnp.float32),
    )
    return data, summary


def held_out(
    points: Sequence[np.ndarray], weights: Sequence[np.ndarray], data: TrainingData, sizes: tuple[int, int]
) -> HeldOut:
    """Put cells of both sides, in the coupling's coordinates, on the device with their weights."""
    x, y = ((_pad(side, size) - data.shift) / data.scale for side, size in zip(points, sizes, strict=True))
    return HeldOut(x, y, *(_pad(side, size) for side, size in zip(weights, sizes, strict=True)))


def draw_global(rng: jax.Array, data: TrainingData, shape: tuple[int, int]) -> Batch:
    """Draw batches from the rescaled measures: table look-ups."""
    rng_source, rng_target = jax.random.split(rng)
    x, y = data.x[draw(rng_source, data.source_table, shape)], data.y[draw(rng_target, data.target_table, shape)]
    return Batch((x - data.shift) / data.scale, (y - data.shift) / data.scale)


def draw_minibatch(
    rng: jax.Array, data: TrainingData, shape: tuple[int, int], problem: BatchProblem, tau: tuple[float, float]
) -> tuple[Batch, jax.Array]:
    """Draw batches from the prior measures and rescale each by a coupling of its own, as published.

    Returns the batches and the largest marginal error of their couplings.
    """
    n_batches, batch_size = shape

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        rng_x, rng_y, rng_row, rng_column = jax.random.split(key, 4)
        x = data.x[draw(rng_x, data.source_table, (batch_size,))]
        y = data.y[draw(rng_y, data.target_table, (batch_size,))]
        source, target, error = rescale_batch(x, y, problem, tau)
        rows = jax.random.categorical(rng_row, jnp.log(source), shape=(batch_size,))
        columns = jax.random.categorical(rng_column, jnp.log(target), shape=(batch_size,))
        return x[rows], y[columns], error

    x, y, errors = jax.lax.map(one, jax.random.split(rng, n_batches))
    return Batch((x - data.shift) / data.scale, (y - data.shift) / data.scale), errors.max()


def rescale_batch(x: jax.Array, y: jax.Array, problem: BatchProblem, tau: tuple[float, float]):
    """Rescaled weights of a batch drawn from the prior measures, and the marginal error of its coupling."""
    a, b = (jnp.full(len(p), mass / len(p)) for p, mass in zip((x, y), problem.mass, strict=True))
    geometry = PointGeometry(x, y, a, b, problem.cost_fn, problem.cost_scale, problem.epsilon)
    solution = sinkhorn(geometry, tau=tau, threshold=BATCH_THRESHOLD, max_iterations=BATCH_SWEEPS)
    return solution.source_weights, solution.target_weights, solution.marginal_error


def _moments(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, weights = points.astype(np.float64), weights.astype(np.float64) / weights.sum(dtype=np.float64)
    mean = weights @ points
    return mean, (weights * (points - mean).T) @ (points - mean)


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


def _pad(array: np.ndarray, size: int) -> jax.Array:
    out = np.zeros((size, *array.shape[1:]), np.float32)
    out[: len(array)] = array
    return jnp.asarray(out)
