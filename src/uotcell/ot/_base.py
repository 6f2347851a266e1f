"""What every solved entropic problem is and can do, whatever its cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import jax
import numpy as np
from numpy.typing import ArrayLike

from uotcell.ot._inputs import as_key
from uotcell.ot._sampling import AliasTable, alias_table, draw


@dataclass(frozen=True, eq=False, kw_only=True)
class Coupling(ABC):
    """Entropic unbalanced coupling of a source and a target, kept as dual potentials instead of an n × m matrix.

    The plan is ``π[i, j] = a[i] b[j] exp((f[i] + g[j] − c[i, j]/scale) / epsilon)``.

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
    shift
        What was subtracted from the source cells, shape ``(d_x,)``, float64. Methods take and return cells in the
        original coordinates.
    source_weights, target_weights
        Marginals of the plan, the rescaled measures ã and b̃; their sums are equal.
    converged, n_iters, marginal_error
        How the solve ended. ``marginal_error`` is the violated optimality condition as a share of the mass.
    memory_limit
        Bytes that a call of a method may take; None for most of what is then free.
    same_space
        Whether source and target cells have the same features.
    """

    same_space: ClassVar[bool] = True

    x: jax.Array
    y: jax.Array
    a: jax.Array
    b: jax.Array
    f: jax.Array
    g: jax.Array
    epsilon: float
    tau: tuple[float, float]
    scale: float
    shift: np.ndarray
    source_weights: jax.Array
    target_weights: jax.Array
    converged: bool
    n_iters: int
    marginal_error: float
    memory_limit: int | None = None

    @property
    def transported_mass(self) -> float:
        """Total mass of the plan in the KL(π | a⊗b) convention, independent of the number of cells."""
        return float(np.asarray(self.source_weights, np.float64).sum())

    @property
    def marginal_penalty(self) -> tuple[float, float]:
        """Penalties λ of the source and of the target side in units of ``scale``; infinite when balanced."""
        return tuple(np.inf if t == 1 else t * self.epsilon / (1 - t) for t in self.tau)

    @property
    def effective_sample_size(self) -> tuple[float, float]:
        """(Σw)² / Σw² of the source and of the target weights, in cells."""
        weights = (np.asarray(w, np.float64) for w in (self.source_weights, self.target_weights))
        return tuple(float(w.sum() ** 2 / (w**2).sum()) for w in weights)

    def sample_marginals(self, rng: jax.Array | int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``n`` source and ``n`` target cells independently, in proportion to the rescaled weights.

        Parameters
        ----------
        rng
            Key or seed.
        n
            Number of draws.

        Returns
        -------
        Row numbers into ``x`` and into ``y``, each of shape ``(n,)``.
        """
        rng_source, rng_target = jax.random.split(as_key(rng))
        i, j = draw(rng_source, self._tables[0], (n,)), draw(rng_target, self._tables[1], (n,))
        return np.asarray(i), np.asarray(j)

    def source_rescaling(self, x: ArrayLike) -> np.ndarray:
        """Mass multiplier of source cells, seen or not.

        Parameters
        ----------
        x
            Cells, shape ``(k, d_x)``.

        Returns
        -------
        ``ã/a`` at every cell, shape ``(k,)``, float32; one means that the cell keeps its mass.
        """
        return np.exp((self.tau[0] - 1.0) * self.soft_minimum(x, source=True) / self.epsilon)

    def target_rescaling(self, y: ArrayLike) -> np.ndarray:
        """Mass multiplier of target cells, seen or not.

        Parameters
        ----------
        y
            Cells, shape ``(k, d_y)``.

        Returns
        -------
        ``b̃/b`` at every cell, shape ``(k,)``, float32.
        """
        return np.exp((self.tau[1] - 1.0) * self.soft_minimum(y, source=False) / self.epsilon)

    def push(self, x: ArrayLike, *, columns: np.ndarray | None = None) -> np.ndarray:
        """Entropic map: the mean of the target cells under the plan, given a source cell, seen or not.

        The non-neural baseline (Pooladian & Niles-Weed 2021).

        Parameters
        ----------
        x
            Source cells, shape ``(k, d_x)``.
        columns
            Rows of the target the mean is taken over; all by default.

        Returns
        -------
        Their images, shape ``(k, d_y)``, float32.
        """
        return self._average(x, source=True, support=columns)

    def pull(self, y: ArrayLike) -> np.ndarray:
        """Entropic map from target to source.

        Parameters
        ----------
        y
            Target cells, shape ``(k, d_y)``.

        Returns
        -------
        Their images, shape ``(k, d_x)``, float32.
        """
        return self._average(y, source=False)

    @abstractmethod
    def sample_pairs(self, rng: jax.Array | int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``n`` pairs of cells from the plan itself.

        Parameters
        ----------
        rng
            Key or seed.
        n
            Number of draws.

        Returns
        -------
        Row numbers into ``x`` and into ``y``, each of shape ``(n,)``; entries at one place are a pair.
        """

    @abstractmethod
    def sample_partners(self, rng: jax.Array | int, rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
        """Draw a pool of target cells for each of many source cells from its row of the plan, in one streamed pass.

        Drawing a source cell by its weight and one of its pool evenly draws from the plan, without an n × m matrix and
        without a search at every draw. The pool is drawn at even steps of the row's mass.

        Parameters
        ----------
        rng
            Key or seed.
        rows
            Source cells, row numbers into ``x``, shape ``(k,)``.
        columns
            Target cells that may be drawn, row numbers into ``y``, shape ``(l,)``.
        size
            Target cells per source cell.

        Returns
        -------
        Positions in ``columns``, shape ``(k, size)``, int32, ascending in every row.
        """

    @abstractmethod
    def soft_minimum(self, points: ArrayLike, *, source: bool) -> np.ndarray:
        """Cost minus potential, its soft minimum over the other side: the potential of a cell without penalty.

        Parameters
        ----------
        points
            Source or target cells, shape ``(k, d_x)`` or ``(k, d_y)``.
        source
            Whether they are source cells.

        Returns
        -------
        ``−ε log Σ exp(h − c/(scale · ε))`` in units of ``scale``, shape ``(k,)``, float32.
        """

    @abstractmethod
    def _average(self, points: ArrayLike, *, source: bool, support: np.ndarray | None = None) -> np.ndarray:
        """Mean of the other side's cells under the plan, for every given cell."""

    @cached_property
    def _tables(self) -> tuple[AliasTable, AliasTable]:
        return alias_table(np.asarray(self.source_weights)), alias_table(np.asarray(self.target_weights))
