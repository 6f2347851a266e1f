"""One space of a quadratic problem: distances of any of its cells to the anchors the problem was solved on."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry.costs import CostFn, SqEuclidean

from uotcell._memory import check_memory
from uotcell.ot._geodesic import Geodesic, Paths, neighbor_graph, path_lengths
from uotcell.ot._geometry import HIGHEST, pairwise_cost, resolve_cost
from uotcell.ot._inputs import as_float32, on_device

# Of fewer cells none is far from the rest.
LEAST_CELLS = 10


class PointSpace(NamedTuple):
    """Space with a cost between points; distances are in units of ``scale``, cells in coordinates minus a shift."""

    cost_fn: CostFn
    anchors: jax.Array
    scale: jax.Array

    def distances(self, points: jax.Array) -> jax.Array:
        """Costs of cells to the anchors, shape ``(k, n_anchors)``."""
        return pairwise_cost(self.cost_fn, points, self.anchors) / self.scale

    def features(self, points: jax.Array, distances: jax.Array) -> jax.Array:
        """Numbers of which the distances to the anchors are linear combinations, as few as there can be."""
        if not isinstance(self.cost_fn, SqEuclidean):
            return distances
        squares = jnp.sum(points**2, axis=1, keepdims=True)
        return jnp.concatenate([squares, jnp.ones_like(squares), points], axis=1)

    def basis(self) -> np.ndarray:
        """Coefficients of these combinations, shape ``(n_anchors, n_features)``, float64."""
        anchors = np.asarray(self.anchors, np.float64)
        if not isinstance(self.cost_fn, SqEuclidean):
            return np.eye(len(anchors))
        squares = (anchors**2).sum(axis=1, keepdims=True)
        return np.concatenate([np.ones_like(squares), squares, -2 * anchors], axis=1) / np.float64(self.scale)


class PathSpace(NamedTuple):
    """Space in which cells are as far apart as the data's neighbour graph says; coordinates minus the same shift."""

    paths: Paths
    scale: float

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Costs of cells to the anchors, shape ``(k, n_anchors)``."""
        return self.paths.costs(np.asarray(points)) / np.float32(self.scale)

    def features(self, points: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Return the distances themselves."""
        return distances

    def basis(self) -> np.ndarray:
        """Identity, shape ``(n_anchors, n_anchors)``."""
        return np.eye(self.paths.lengths.shape[1])


Space = PointSpace | PathSpace


def build_space(
    points: np.ndarray,
    anchors: np.ndarray,
    mass: np.ndarray,
    cost: str | CostFn | Geodesic,
    name: str,
    memory_limit: int | None = None,
) -> tuple[Space, np.ndarray]:
    """Build a space from its cells.

    Parameters
    ----------
    points
        All cells minus a shift, shape ``(n, d)``.
    anchors
        Row numbers of the anchors.
    mass
        Masses of the anchors, shape ``(n_anchors,)``.
    cost
        Cost between two cells of the space.
    name
        What the space is called in errors.
    memory_limit
        Bytes that path lengths may take.

    Returns
    -------
    The space, and the costs among its anchors, of which the mean under their masses is one.
    """
    if cost == "geodesic" or isinstance(cost, Geodesic):
        geodesic = Geodesic() if isinstance(cost, str) else cost
        # float32, with a copy where costs of cells are taken.
        what = f"the path lengths between {len(points):,} cells of `{name}` and {len(anchors):,} anchors"
        check_memory(8 * len(points) * len(anchors), memory_limit, what, "Lower `anchors`")
        graph = neighbor_graph(points, geodesic.n_neighbors)
        paths = Paths(points, path_lengths(graph, anchors, np.arange(len(points))).T, geodesic)
        space = PathSpace(paths, 1.0)
        table = paths.lengths[anchors].astype(np.float64) ** geodesic.power
    else:
        (rounded,) = as_float32([points], 0.0)
        space = PointSpace(resolve_cost(cost), on_device(rounded[anchors]), 1.0)
        table = np.asarray(space.distances(space.anchors), np.float64)
    scale = float(mass @ table @ mass / mass.sum() ** 2)
    if not float(np.finfo(np.float32).tiny) <= scale <= float(np.finfo(np.float32).max):
        raise ValueError(
            f"Expected a positive mean cost between the cells of `{name}`, found {scale:.3g}: they all coincide or the "
            "values overflow float32. Check the representation."
        )
    _warn_if_few_cells_set_the_scale(scale, table, anchors, mass, name)
    return space._replace(scale=jnp.float32(scale) if isinstance(space, PointSpace) else scale), table / scale


def _warn_if_few_cells_set_the_scale(
    scale: float, table: np.ndarray, anchors: np.ndarray, mass: np.ndarray, name: str
) -> None:
    """Warn when the farthest fiftieth of the cells makes most of the mean cost; clusters far apart are no reason."""
    cells = np.fromiter(dict.fromkeys(anchors[np.argsort(-table.mean(axis=1))]), int)
    if len(cells) < LEAST_CELLS:
        return
    rest = ~np.isin(anchors, cells[: -(-len(cells) // 50)])
    without = float(mass[rest] @ table[np.ix_(rest, rest)] @ mass[rest]) / mass[rest].sum() ** 2
    if scale > 5 * without:
        warnings.warn(
            f"The mean cost between cells of `{name}` ({scale:.3g}) is more than five times that without the farthest "
            f"({without:.3g}): a few far cells set the scale of `epsilon` for all others. The farthest is row "
            f"{cells[0]} of `{name}`. Remove these cells.",
            stacklevel=4,
        )


class Linearisation(NamedTuple):
    """The cost between two spaces, linearised at a plan between their anchors; any cells, seen or not.

    ``weight`` Σ (d(x, xₖ) − d(y, yₗ))² P[k, l] + ``shared_weight`` ‖x_shared − y_shared‖² + ``offset``. The features a
    cell shares with the other space follow its own. ``cross`` is −2 P between the features of the distances.
    """

    source: Space
    target: Space
    source_mass: jax.Array
    target_mass: jax.Array
    cross: jax.Array
    weight: jax.Array
    shared_weight: jax.Array
    offset: jax.Array

    @classmethod
    def at(cls, plan: np.ndarray, source: Space, target: Space, *, weight, shared_weight, offset) -> Linearisation:
        """Linearise at a plan of mass one between the anchors."""
        plan = np.asarray(plan, np.float64)
        cross = -2 * source.basis().T @ plan @ target.basis()
        arrays = (plan.sum(axis=1), plan.sum(axis=0), cross, weight, shared_weight, offset)
        return cls(source, target, *(on_device(array) for array in arrays))

    def left(self, x, n_own: int):
        """Numbers of source cells: their products with those of target cells are the costs, shape ``(k, rank)``."""
        norms, features, shared = self._side(x, n_own, self.source, self.source_mass)
        if self.cross.shape[0] > self.cross.shape[1]:
            features = jnp.matmul(features, self.cross, precision=HIGHEST)
        parts = (norms + self.offset, jnp.ones_like(norms), self.weight * features, -2 * self.shared_weight * shared)
        return jnp.concatenate(parts, axis=1)

    def right(self, y, n_own: int):
        """Numbers of target cells, shape ``(k, rank)``."""
        norms, features, shared = self._side(y, n_own, self.target, self.target_mass)
        if self.cross.shape[0] <= self.cross.shape[1]:
            features = jnp.matmul(features, self.cross.T, precision=HIGHEST)
        return jnp.concatenate([jnp.ones_like(norms), norms, features, shared], axis=1)

    def _side(self, points, n_own: int, space: Space, mass: jax.Array):
        own, shared = points[:, :n_own], jnp.asarray(points[:, n_own:], jnp.float32)
        distances = space.distances(own)
        features = jnp.asarray(space.features(own, distances))
        norms = self.weight * jnp.matmul(jnp.asarray(distances) ** 2, mass[:, None], precision=HIGHEST)
        return norms + self.shared_weight * jnp.sum(shared**2, axis=1, keepdims=True), features, shared
