"""Couplings of costs that are no function of two points: paths in a graph, or distances compared across spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import jax
import numpy as np
from jax.scipy.special import logsumexp
from numpy.typing import ArrayLike

from uotcell.ot._base import Coupling
from uotcell.ot._coupling import check_pools, default_tile
from uotcell.ot._inputs import as_key, as_points, padded_size
from uotcell.ot._sampling import draw, draw_columns, partners


class CrossCost(Protocol):
    """Costs between the cells of a source and of a target, which may live in different spaces.

    Cells are given in their original coordinates. ``support`` holds row numbers of the other side, all by default.
    """

    def rows(self, x: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of source cells, seen or not, to the target cells, shape ``(k, m)``."""

    def columns(self, y: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of target cells, seen or not, to the source cells, shape ``(k, n)``."""

    def seen_rows(self, i: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of source cells given by their row numbers, shape ``(k, m)``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StructuredCoupling(Coupling):
    """Entropic unbalanced coupling whose cost is no function of two points; the two sides may differ in dimension.

    Behaves like :class:`uotcell.ot.UnbalancedCoupling`. Costs are computed in blocks of rows that are thrown away at
    once, so that beyond what the cost itself stores no n × m numbers are held.

    Attributes
    ----------
    x, y
        Source and target cells minus ``shift`` and ``target_shift``, shapes ``(n, d_x)`` and ``(m, d_y)``, float32.
    a, b
        Their prior masses, shapes ``(n,)`` and ``(m,)``.
    f, g
        Dual potentials in units of ``scale``.
    epsilon
        Entropic regularisation in units of ``scale``.
    tau
        λ/(λ+ε) of the source and of the target side; 1 is balanced.
    scale
        The cost that counts as one, in units of the cost.
    cost
        Costs of source cells to all target cells (``rows``) and the other way around (``columns``).
    shift, target_shift
        What was subtracted from the source and from the target cells, shapes ``(d_x,)`` and ``(d_y,)``, float64.
    anchors
        Rows of the source and target cells the problem was solved on; ``None`` when on all of them.
    source_weights, target_weights
        Marginals of the plan, the rescaled measures ã and b̃; their sums are equal.
    converged, n_iters, marginal_error
        How the solve ended. ``marginal_error`` is the violated optimality condition as a share of the mass.
    memory_limit
        Bytes that a call of a method may take; None for most of what is then free.
    """

    cost: CrossCost
    target_shift: np.ndarray
    anchors: tuple[np.ndarray, np.ndarray] | None

    def sample_pairs(self, rng: jax.Array | int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw pairs, see :meth:`Coupling.sample_pairs`."""
        rng_source, rng_target = jax.random.split(as_key(rng))
        i = np.asarray(draw(rng_source, self._tables[0], (n,)))
        h = _log_weights(np.asarray(self.b), np.asarray(self.g), self.epsilon)
        columns = self._reduce(self.cost.seen_rows, i, None, h, _draw_columns, rng=rng_target)
        return i, columns

    def sample_partners(self, rng: jax.Array | int, rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
        """Draw pools of target cells, see :meth:`Coupling.sample_partners`."""
        rows, columns = np.asarray(rows), np.asarray(columns)
        check_pools(len(rows), size, self.memory_limit)
        h = _log_weights(np.asarray(self.b)[columns], np.asarray(self.g)[columns], self.epsilon)
        return self._reduce(self.cost.seen_rows, rows, columns, h, partial(_partners, size=size), rng=as_key(rng))

    def soft_minimum(self, points: ArrayLike, *, source: bool) -> np.ndarray:
        """Potential of cells without penalty, see :meth:`Coupling.soft_minimum`."""
        points, costs, support, h, _ = self._sides(points, source=source)
        return -self.epsilon * self._reduce(costs, points, support, h, _log_sum)

    def _average(self, points: ArrayLike, *, source: bool, support: np.ndarray | None = None) -> np.ndarray:
        points, costs, support, h, cells = self._sides(points, source=source, support=support)
        shift = self.target_shift if source else self.shift
        padded = np.zeros((padded_size(len(h)), cells.shape[1]), np.float32)
        padded[: len(h)] = cells if support is None else cells[support]
        average = self._reduce(costs, points, support, h, partial(_mean, values=padded))
        return (average + shift).astype(np.float32)

    def _sides(self, points: ArrayLike, *, source: bool, support: np.ndarray | None = None):
        """Query points, their costs, and the cells, their row numbers and log weights of the other side."""
        ours, cells, mass, potential = (self.x, self.y, self.b, self.g) if source else (self.y, self.x, self.a, self.f)
        points = as_points(points, "x" if source else "y", dim=ours.shape[1])
        mass, potential = np.asarray(mass), np.asarray(potential)
        if support is None and self.anchors is not None:
            support = self.anchors[1 if source else 0]
        if support is None:
            h = _log_weights(mass, potential, self.epsilon)
        else:
            # These stand for all cells of their side, so they carry the mass of the whole side.
            h = _log_weights(mass[support], potential[support], self.epsilon) + np.log(mass.sum() / mass[support].sum())
        return points, self.cost.rows if source else self.cost.columns, support, h, np.asarray(cells)

    def _reduce(self, costs: Callable, queries: np.ndarray, support, h: np.ndarray, reduction: Callable, *, rng=None):
        """Reduce the costs of the queries block by block; blocks of one size share one compiled program."""
        width = padded_size(len(h))
        weights = np.full(width, -np.inf, np.float32)  # padding weighs nothing
        weights[: len(h)] = h
        height = min(default_tile(width, self.memory_limit), padded_size(len(queries)))
        shape = (padded_size(len(queries)), 1)
        offsets = np.zeros(shape) if rng is None else np.asarray(jax.random.uniform(rng, shape))
        out = []
        for start in range(0, len(queries), height):
            block = queries[start : start + height]
            padded, padded_offsets = np.zeros((height, width), np.float32), np.zeros((height, 1), np.float32)
            padded[: len(block), : len(h)] = costs(block, support)
            padded_offsets[: len(block)] = offsets[start : start + len(block)]
            reduced = reduction(padded_offsets, padded, weights, 1 / (self.scale * self.epsilon))
            out.append(np.asarray(reduced)[: len(block)])
        return np.concatenate(out)


def _log_weights(mass: np.ndarray, potential: np.ndarray, epsilon: float) -> np.ndarray:
    with np.errstate(divide="ignore"):  # a cell of mass zero weighs nothing
        return np.log(mass) + potential / epsilon


# One signature for all, so that one loop serves them; the first two draw nothing.
@jax.jit
def _log_sum(offsets, cost, h, factor):
    return logsumexp(h - cost * factor, axis=1)


@jax.jit
def _mean(offsets, cost, h, factor, values):
    return jax.nn.softmax(h - cost * factor, axis=1) @ values


@jax.jit
def _draw_columns(offsets, cost, h, factor):
    return draw_columns(offsets, h - cost * factor)


@partial(jax.jit, static_argnames=("size",))
def _partners(offsets, cost, h, factor, *, size):
    return partners(offsets, h - cost * factor, size)
