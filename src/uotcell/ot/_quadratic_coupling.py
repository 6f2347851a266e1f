"""The solved quadratic problem between the cells of two spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from uotcell.ot._coupling import default_tile
from uotcell.ot._spaces import Linearisation
from uotcell.ot._structured import StructuredCoupling


@dataclass(frozen=True, eq=False, kw_only=True)
class QuadraticCoupling(StructuredCoupling):
    """Entropic unbalanced coupling of cells in two spaces. Build it with :func:`uotcell.ot.solve_quadratic`.

    Everywhere a cell is its own features followed by the ``n_shared`` ones that both spaces have: in ``x`` and ``y``,
    in queries, and in images.

    Attributes
    ----------
    cost
        The quadratic cost linearised at the plan, with the linear part, in units in which their mean is one: so
        ``scale`` is one. The rest is as in :class:`uotcell.ot.StructuredCoupling`.
    fused_weight
        Weight w of the linear cost of shared features.
    n_shared
        Number of shared features, the last columns of ``x`` and of ``y``.
    objective
        What was minimised, of the plan scaled to mass one: comparable between solves of one problem.
    plan_change
        L1 distance between the plan, of mass one, and the one its cost is linearised at.
    n_outer
        Linear problems solved from the chosen start.
    """

    same_space: ClassVar[bool] = False

    fused_weight: float
    n_shared: int
    objective: float
    plan_change: float
    n_outer: int


class QuadraticCost:
    """Linearised cost with the numbers of all seen cells, of which products are costs.

    Parameters
    ----------
    linearisation
        Cost of any cells.
    cells
        Source and target cells in original coordinates, shared features last.
    shifts
        What is subtracted from them.
    n_own
        Features of each side that are its own.
    memory_limit
        Bytes that blocks of distances may take.
    """

    def __init__(
        self, linearisation: Linearisation, cells, shifts, n_own: tuple[int, int], memory_limit: int | None = None
    ) -> None:
        self.linearisation, self.shifts, self.n_own = linearisation, shifts, n_own
        self.memory_limit = memory_limit
        self._left, self._right = (self._numbers(points, side) for side, points in enumerate(cells))

    def rows(self, x: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of source cells, seen or not, to the target cells, shape ``(k, m)``."""
        return self._numbers(x, 0) @ (self._right if support is None else self._right[support]).T

    def columns(self, y: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of target cells, seen or not, to the source cells, shape ``(k, n)``."""
        return self._numbers(y, 1) @ (self._left if support is None else self._left[support]).T

    def seen_rows(self, i: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
        """Costs of source cells given by their row numbers, shape ``(k, m)``."""
        return self._left[i] @ (self._right if support is None else self._right[support]).T

    def _numbers(self, points: np.ndarray, side: int) -> np.ndarray:
        function = self.linearisation.right if side else self.linearisation.left
        points = (points - self.shifts[side]).astype(np.float32)
        tile = default_tile(self.linearisation.cross.shape[side], self.memory_limit)
        blocks = [function(points[i : i + tile], self.n_own[side]) for i in range(0, len(points), tile)]
        return np.concatenate([np.asarray(block) for block in blocks])
