"""Networks that stand for the rescaling of a coupling where its cells are not at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from uotcell.networks import RescalingNetwork
from uotcell.ot._inputs import as_points, padded_size

SIDES = ("source", "target")


@dataclass(frozen=True, eq=False, kw_only=True)
class RescalingNetworks:
    """Learned mass multipliers η of source and ξ of target cells (Eyring, Klein, Uscidda et al. 2024, appendix).

    The coupling gives them in closed form, :meth:`uotcell.ot.UnbalancedCoupling.source_rescaling`, but needs its cells
    for it. Make them with :func:`uotcell.train.fit_rescaling`.

    Attributes
    ----------
    hidden
        Widths of the layers of both networks.
    params
        Parameters of ``"source"`` and ``"target"``.
    shift, scale
        Per side: networks see ``(cells − shift) / scale``.
    unit
        Per side: the multiplier that counts as one, the coupling's mean.
    """

    hidden: tuple[int, ...]
    params: dict[str, Any]
    shift: dict[str, np.ndarray]
    scale: dict[str, float]
    unit: dict[str, float]

    def source_rescaling(self, x: ArrayLike) -> np.ndarray:
        """Mass multiplier of source cells ``(n, dim)``; shape ``(n,)``, float32, positive."""
        return self._rescaling("source", x)

    def target_rescaling(self, y: ArrayLike) -> np.ndarray:
        """Mass multiplier of target cells ``(n, dim)``; shape ``(n,)``, float32, positive."""
        return self._rescaling("target", y)

    def _rescaling(self, side: str, cells: ArrayLike) -> np.ndarray:
        shift = self.shift[side]
        cells = as_points(cells, "x" if side == "source" else "y", dim=len(shift))
        padded = np.zeros((padded_size(len(cells)), len(shift)), np.float32)
        padded[: len(cells)] = (cells - shift) / self.scale[side]
        return np.asarray(multipliers(self.hidden, self.params[side], padded))[: len(cells)] * self.unit[side]


@partial(jax.jit, static_argnames=("hidden",))
def multipliers(hidden: tuple[int, ...], params: Any, x: jax.Array) -> jax.Array:
    """Apply one network to ``(n, dim)``; positive numbers ``(n,)``."""
    return nnx.merge(_structure(hidden, x.shape[-1]), params)(x)


@partial(jax.jit, static_argnames=("hidden", "dim"))
def initial_params(hidden: tuple[int, ...], dim: int, rng: jax.Array) -> Any:
    """Draw the parameters of one network."""
    return nnx.split(RescalingNetwork(dim, hidden, rngs=nnx.Rngs(params=rng)))[1]


@lru_cache
def _structure(hidden: tuple[int, ...], dim: int):
    """Return the static part of a network, one object for equal settings, as compiled programs are keyed by it."""
    return nnx.split(nnx.eval_shape(lambda: RescalingNetwork(dim, hidden, rngs=nnx.Rngs(params=jax.random.key(0)))))[0]
