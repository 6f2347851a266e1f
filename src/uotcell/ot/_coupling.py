"""The solved entropic unbalanced problem between two sets of points."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn

from uotcell._memory import check_memory, memory_bytes, on_accelerator
from uotcell.ot._base import Coupling
from uotcell.ot._geometry import TILE_BYTES, kernel_average, kernel_partners, log_kernel_sum, pairwise_cost
from uotcell.ot._inputs import as_key, as_points, padded_size
from uotcell.ot._sampling import draw, draw_columns

# Rows per block such that one block of costs holds about this many numbers: measured fastest on a CPU (16 MB), and of
# those tried on an H100 (256 MB; 30,000 × 30,000 cells took 13 ms a sweep, in blocks of a CPU's size 18).
TILE_ENTRIES, ACCELERATOR_TILE_ENTRIES = 4_000_000, 64_000_000


def default_tile(n_columns: int, memory_limit: int | None, *, n_rows: int = 0) -> int:
    """Rows per block for a reduction over ``n_columns`` cells: as many as are fastest, or as fit.

    A solve also takes blocks of columns over ``n_rows`` cells. Where memory is short, the answer is a power of two:
    what is free differs from run to run, the compiled program should not.
    """
    widest = max(1, n_columns, n_rows)
    entries = ACCELERATOR_TILE_ENTRIES if on_accelerator() else TILE_ENTRIES
    fastest, fit = max(1, entries // max(1, n_columns)), memory_bytes(memory_limit) // (TILE_BYTES * widest)
    if fit < 1:
        check_memory(TILE_BYTES * widest, memory_limit, f"the costs of a cell to {widest:,} others", "Take fewer cells")
    return fastest if fit >= fastest else 1 << max(0, fit.bit_length() - 1)


def check_pools(n_rows: int, size: int, memory_limit: int | None) -> None:
    """Raise unless pools of partners, on the device and on their way there, fit into memory."""
    what = f"the pools of {size} partners of {n_rows:,} cells"
    check_memory(3 * 4 * n_rows * size, memory_limit, what, "Train on fewer cells, or by a method that needs no pairs")


@dataclass(frozen=True, eq=False, kw_only=True)
class UnbalancedCoupling(Coupling):
    """Entropic unbalanced coupling of two sets of points, kept as dual potentials instead of an n × m matrix.

    The plan is ``π[i, j] = a[i] b[j] exp((f[i] + g[j] − c(xᵢ, yⱼ)/scale) / epsilon)``. Build it with
    :func:`uotcell.ot.solve_unbalanced`.

    Attributes
    ----------
    x, y
        Source and target cells minus ``shift``, shapes ``(n, d)`` and ``(m, d)``, float32.
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
    cost_fn
        Cost between two cells.
    shift
        What was subtracted from both sides before squaring distances in float32, shape ``(d,)``, float64. Methods
        take and return cells in the original coordinates.
    anchors
        Rows of the source and target cells the problem was solved on; ``None`` when on all of them.
    source_weights, target_weights
        Marginals of the plan, the rescaled measures ã and b̃; their sums are equal.
    converged, n_iters, marginal_error
        How the solve ended. ``marginal_error`` is the violated optimality condition as a share of the mass.
    memory_limit
        Bytes that a call of a method may take; None for most of what is then free.
    """

    cost_fn: CostFn
    anchors: tuple[np.ndarray, np.ndarray] | None

    @property
    def target_shift(self) -> np.ndarray:
        """What was subtracted from the target cells, shape ``(d,)``, float64."""
        return self.shift

    def sample_pairs(self, rng: jax.Array | int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw pairs, see :meth:`Coupling.sample_pairs`."""
        rng_source, rng_target = jax.random.split(as_key(rng))
        i = draw(rng_source, self._tables[0], (n,))
        h, tile = jnp.log(self.b) + self.g / self.epsilon, default_tile(len(self.y), self.memory_limit)
        offsets, columns = jax.random.uniform(rng_target, (n, 1)), []
        for start in range(0, n, tile):
            cost = pairwise_cost(self.cost_fn, self.x[i[start : start + tile]], self.y)
            log_weights = h - cost / (self.scale * self.epsilon)
            columns.append(draw_columns(offsets[start : start + tile], log_weights))
        return np.asarray(i), np.asarray(jnp.concatenate(columns))

    def sample_partners(self, rng: jax.Array | int, rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
        """Draw pools of target cells, see :meth:`Coupling.sample_partners`."""
        # Padded rows and columns share compiled programs; columns of weight zero are never drawn.
        n, m = padded_size(len(rows)), padded_size(len(columns))
        check_pools(n, size, self.memory_limit)
        x, y = np.zeros((n, self.x.shape[1]), np.float32), np.zeros((m, self.y.shape[1]), np.float32)
        x[: len(rows)], y[: len(columns)] = np.asarray(self.x)[rows], np.asarray(self.y)[columns]
        h = np.full(m, -np.inf, np.float32)
        with np.errstate(divide="ignore"):  # a cell of mass zero weighs nothing
            h[: len(columns)] = np.log(np.asarray(self.b)[columns]) + np.asarray(self.g)[columns] / self.epsilon
        tile = default_tile(m, self.memory_limit)
        pool = kernel_partners(as_key(rng), x, y, h, self.cost_fn, self.scale, self.epsilon, size=size, tile=tile)
        return np.asarray(pool)[: len(rows)]

    def _kernel_arguments(self, points: ArrayLike, *, source: bool, support: np.ndarray | None = None) -> dict:
        """Query points in the coupling's coordinates against the cells, and log weights, of the other side."""
        points = as_points(points, "x" if source else "y", dim=self.x.shape[1])
        sides = (self.y, self.b, self.g) if source else (self.x, self.a, self.f)
        cells, mass, potential = (np.asarray(side) for side in sides)
        with np.errstate(divide="ignore"):  # a cell of mass zero weighs nothing
            log_mass = np.log(mass)
        if support is None and self.anchors is not None:
            support = self.anchors[1 if source else 0]
        if support is not None:
            # These stand for all cells of their side, so they carry the mass of the whole side.
            log_mass = log_mass[support] + np.log(mass.sum() / mass[support].sum())
            cells, potential = cells[support], potential[support]
        # Padding of weight zero, so that calls of similar sizes share compiled programs; callers cut it off.
        queries = np.zeros((padded_size(len(points)), points.shape[1]), np.float32)
        queries[: len(points)] = points - self.shift
        support_size = padded_size(len(cells))
        padded_cells = np.zeros((support_size, cells.shape[1]), np.float32)
        padded_cells[: len(cells)] = cells
        h = np.full(support_size, -np.inf, np.float32)
        h[: len(cells)] = log_mass + potential / self.epsilon
        return {
            "x": queries,
            "y": padded_cells,
            "h": h,
            "cost_fn": self.cost_fn,
            "scale": self.scale,
            "epsilon": self.epsilon,
            "tile": default_tile(support_size, self.memory_limit),
        }

    def soft_minimum(self, points: ArrayLike, *, source: bool) -> np.ndarray:
        """Potential of cells without penalty, see :meth:`Coupling.soft_minimum`."""
        total = log_kernel_sum(**self._kernel_arguments(points, source=source))
        return -self.epsilon * np.asarray(total)[: len(points)]

    def _average(self, points: ArrayLike, *, source: bool, support: np.ndarray | None = None) -> np.ndarray:
        average = kernel_average(**self._kernel_arguments(points, source=source, support=support))
        return (np.asarray(average)[: len(points)] + self.shift).astype(np.float32)
