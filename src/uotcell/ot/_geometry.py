"""Cost between two clouds of cells, dense or computed in tiles, in the KL convention of unbalanced transport."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from numpy.typing import ArrayLike
from ott.geometry import costs
from ott.geometry.geometry import Geometry

from uotcell.ot._sampling import partners

# On a CPU a dense cost matrix is kept up to this many entries (256 MB in float32); above, costs are computed in tiles.
# An accelerator reads a matrix faster than it computes one, and keeps it wherever it fits.
DENSE_ENTRIES = 64_000_000
# Bytes per entry at the peak of a solve on a matrix that is held, as its compiled program says, and of a tile, which a
# structured cost computes on the host.
DENSE_BYTES, TILE_BYTES = 20, 24
# Products of which large terms cancel: a GPU's shortened float32 would leave nothing of small costs.
HIGHEST = jax.lax.Precision.HIGHEST


@jax.tree_util.register_pytree_node_class
class UnridgedCosine(costs.Cosine):
    """ott's cosine distance without the 1e-8 it adds to the product of lengths, which makes short cells orthogonal."""

    def __init__(self):
        super().__init__(ridge=float(np.finfo(np.float32).tiny))


COSTS = {"sqeuclidean": costs.SqEuclidean, "euclidean": costs.Euclidean, "cosine": UnridgedCosine}


def resolve_cost(cost: str | costs.CostFn) -> costs.CostFn:
    """Turn a cost name into the ott cost function it stands for; pass a cost function through."""
    if isinstance(cost, costs.CostFn):
        return cost
    if cost not in COSTS:
        raise ValueError(f"Expected `cost` to be one of {sorted(COSTS)} or an ott `CostFn`, found {cost!r}.")
    return COSTS[cost]()


def is_translation_invariant(cost_fn: costs.CostFn) -> bool:
    """Whether moving all cells changes no cost."""
    return isinstance(cost_fn, (costs.TICost, costs.Euclidean))


def pairwise_cost(cost_fn: costs.CostFn, x: jax.Array, y: jax.Array) -> jax.Array:
    """Cost of every pair, shape ``(len(x), len(y))``, never negative for squared Euclidean distance."""
    cost = cost_fn.all_pairs(x, y)
    # ‖x‖² + ‖y‖² − 2x·y can round below zero for near-identical cells.
    return jnp.maximum(cost, 0.0) if isinstance(cost_fn, costs.SqEuclidean) else cost


# For costs that are data of a program anyway; a cost that is not registered with jax cannot be.
compiled_cost = jax.jit(pairwise_cost)


def mean_squared_distance(x: ArrayLike, y: ArrayLike, a: ArrayLike | None = None, b: ArrayLike | None = None) -> float:
    """Mean of ‖x − y‖² over all pairs of cells of masses ``a`` and ``b``, in one pass."""
    (mean_x, spread_x), (mean_y, spread_y) = (_mean_and_spread(*side) for side in ((x, a), (y, b)))
    return float(spread_x + spread_y + ((mean_x - mean_y) ** 2).sum())


def _mean_and_spread(points: ArrayLike, mass: ArrayLike | None) -> tuple[np.ndarray, float]:
    points = np.asarray(points, np.float64)
    mean = np.average(points, axis=0, weights=mass)
    return mean, np.average(((points - mean) ** 2).sum(axis=1), weights=mass)


def map_tiles(function: Callable, rows: Any, tile: int | None):
    """Apply ``function`` to blocks of at most ``tile`` rows and stack the answers along the first axis.

    ``rows`` is an array, or a tuple of arrays of one length. The last block is padded by repeating the last row, so
    every block has one shape and compiles once.
    """
    n_rows = len(jax.tree.leaves(rows)[0])
    if tile is None or tile >= n_rows:
        return function(rows)
    n_tiles = -(-n_rows // tile)

    def in_blocks(leaf: jax.Array) -> jax.Array:
        padded = jnp.concatenate([leaf, jnp.repeat(leaf[-1:], n_tiles * tile - n_rows, axis=0)])
        return padded.reshape(n_tiles, tile, *leaf.shape[1:])

    blocks = jax.lax.map(function, jax.tree.map(in_blocks, rows))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n_rows], blocks)


@partial(jax.jit, static_argnames=("tile",))
def log_kernel_sum(
    x: jax.Array, y: jax.Array, h: jax.Array, cost_fn: costs.CostFn, scale: jax.Array, epsilon: jax.Array, *, tile=None
) -> jax.Array:
    """For every row of ``x``, ``log Σⱼ exp(hⱼ − c(x, yⱼ) / (scale · ε))``; shape ``(len(x),)``.

    The one reduction everything else is made of: with h = log b + g/ε it gives the source potential of any cell.
    """
    return map_tiles(lambda x_: logsumexp(h - pairwise_cost(cost_fn, x_, y) / (scale * epsilon), axis=1), x, tile)


@partial(jax.jit, static_argnames=("tile",))
def kernel_average(
    x: jax.Array, y: jax.Array, h: jax.Array, cost_fn: costs.CostFn, scale: jax.Array, epsilon: jax.Array, *, tile=None
) -> jax.Array:
    """For every row of ``x``, the mean of ``y`` with weights ∝ ``exp(hⱼ − c(x, yⱼ) / (scale · ε))``."""

    def average(x_: jax.Array) -> jax.Array:
        return jax.nn.softmax(h - pairwise_cost(cost_fn, x_, y) / (scale * epsilon), axis=1) @ y

    return map_tiles(average, x, tile)


@partial(jax.jit, static_argnames=("size", "tile"))
def kernel_partners(
    rng: jax.Array, x: jax.Array, y: jax.Array, h: jax.Array, cost_fn: costs.CostFn, scale, epsilon, *, size, tile=None
) -> jax.Array:
    """For every row of ``x``, ``size`` rows of ``y`` drawn in proportion to ``exp(hⱼ − c(x, yⱼ) / (scale · ε))``."""

    def draw(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_, offsets = block
        return partners(offsets, h - pairwise_cost(cost_fn, x_, y) / (scale * epsilon), size)

    return map_tiles(draw, (x, jax.random.uniform(rng, (len(x), 1))), tile)


@jax.tree_util.register_pytree_node_class
class PointGeometry(Geometry):
    """Transport geometry between weighted points, for ott's Sinkhorn solver.

    Two things set it apart from ott's own point cloud. The cost is shifted by −ε(log aᵢ + log bⱼ), so that the plan
    is regularised by KL(π | a⊗b) and its mass does not depend on how many cells were sampled. And with ``tile`` the
    cost is computed in blocks of rows that are thrown away at once, so that n × m numbers are never held.

    Parameters
    ----------
    x, y
        Points, shapes ``(n, d)`` and ``(m, d)``.
    a, b
        Positive weights, shapes ``(n,)`` and ``(m,)``.
    cost_fn
        Cost between two points.
    scale
        What one unit of cost is; costs and potentials are divided by it.
    epsilon
        Entropic regularisation in units of ``scale``.
    tile
        Rows per block; ``None`` holds the whole cost matrix.
    """

    def __init__(self, x, y, a, b, cost_fn, scale, epsilon, *, tile: int | None = None):
        super().__init__(epsilon=epsilon)
        self.x, self.y, self.a, self.b, self.cost_fn, self.scale, self.tile = x, y, a, b, cost_fn, scale, tile
        self._dense = compiled_cost(cost_fn, x, y) / scale if tile is None else None

    def cost_rows(self, rows: jax.Array) -> jax.Array:
        """Rows of a cost matrix that is held, in units of ``scale``, for source points given by their numbers."""
        return self._dense[rows]

    @classmethod
    def from_cost(cls, cost: jax.Array, a: jax.Array, b: jax.Array, epsilon) -> PointGeometry:
        """Take the cost itself, shape ``(n, m)``, in units of its scale, where it is no function of two points."""
        return cls.tree_unflatten({"tile": None}, (None, None, a, b, None, 1.0, epsilon, cost))

    def at(self, epsilon) -> PointGeometry:
        """Return the same points and costs with another ε."""
        *parts, _, cost = self.tree_flatten()[0]
        return self.tree_unflatten({"tile": self.tile}, (*parts, epsilon, cost))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of source and target points."""
        return len(self.a), len(self.b)

    @property
    def dtype(self):
        """Floating point type of the weights."""
        return self.a.dtype

    def apply_lse_kernel(self, f, g, eps, vec=None, axis=0):
        """Sum the kernel over one side in log space, without the stabilising shift ott adds and removes."""
        if vec is not None:
            raise ValueError("Expected `vec` to be None: this geometry only serves log-space Sinkhorn.")
        if axis == 1:
            ours, theirs, potential = self.a, self.b, g
        else:
            ours, theirs, potential = self.b, self.a, f
        h = jnp.log(theirs) + potential / eps
        if self._dense is not None:
            cost = self._dense if axis == 1 else self._dense.T
            total = logsumexp(h - cost / eps, axis=1)
        else:
            rows, columns = (self.x, self.y) if axis == 1 else (self.y, self.x)
            total = log_kernel_sum(rows, columns, h, self.cost_fn, self.scale, eps, tile=self.tile)
        out = eps * (jnp.log(ours) + total)
        return out, jnp.ones_like(out)

    def tree_flatten(self):
        """Split into arrays and static parts."""
        children = (self.x, self.y, self.a, self.b, self.cost_fn, self.scale, self._epsilon_init, self._dense)
        return children, {"tile": self.tile}

    @classmethod
    def tree_unflatten(cls, aux_data, children):
        """Rebuild from arrays and static parts."""
        *points, epsilon, cost = children
        new = cls.__new__(cls)
        Geometry.__init__(new, epsilon=epsilon)
        new.x, new.y, new.a, new.b, new.cost_fn, new.scale = points
        new.tile, new._dense = aux_data["tile"], cost
        return new
