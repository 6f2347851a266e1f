"""What every solved entropic problem is, whatever its cost: potentials, rescaled weights, and how the solve ended."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import jax
import numpy as np

from uotcell.ot._inputs import as_key
from uotcell.ot._sampling import AliasTable, alias_table, draw


@dataclass(frozen=True, eq=False, kw_only=True)
class Coupling:
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

    @cached_property
    def _tables(self) -> tuple[AliasTable, AliasTable]:
        return alias_table(np.asarray(self.source_weights)), alias_table(np.asarray(self.target_weights))
