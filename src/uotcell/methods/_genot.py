"""GENOT: a conditional flow that draws from the rows of a coupling, within or across spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from uotcell.methods._base import Batch, PairSummary
from uotcell.methods._flow import FlowMethod, FlowState


@dataclass(frozen=True, kw_only=True)
class GENOT(FlowMethod):
    """Generative entropic map: for every source cell, a flow from noise to its distribution over target cells.

    Minimises ``E ‖v(t, (1 − t) z + t y | x) − (y − z)‖²`` over pairs (x, y) from a coupling and latent noise z
    (Klein, Uscidda, Theis & Cuturi 2024): the velocity leads from the noise, not from the source cell, which only
    conditions it. So any coupling will do: of any cost, unbalanced, or quadratic between spaces without a common
    feature.

    Parameters
    ----------
    n_samples
        Draws per cell behind conditional means (``push``) and variances. All cells share the latent
        draws, in pairs of opposite sign, so that results depend on no seed and on no other cell.
    hidden, activation, noise, noise_schedule, clip_norm, solver, n_steps, tolerance
        See :class:`FlowMethod`.
    learning_rate, decay, optimizer
        See :class:`~uotcell.methods.Method`.

    Examples
    --------
    >>> import uotcell as uc
    >>> method = uc.methods.GENOT(n_samples=64)  # for uc.tl.fit_translation(..., method=method)
    >>> method.is_stochastic, method.crosses_spaces
    (True, True)
    """

    name: ClassVar[str] = "genot"
    samples: ClassVar[Literal["marginals", "pairs"]] = "pairs"
    crosses_spaces: ClassVar[bool] = True
    is_stochastic: ClassVar[bool] = True
    default_ema_decay: ClassVar[float | None] = 0.999

    n_samples: int = 32
    solver: Literal["tsit5", "heun", "euler"] = "heun"
    n_steps: int | None = 10

    def __post_init__(self):
        """Refuse options that would otherwise fail late or be ignored."""
        super().__post_init__()
        if isinstance(self.n_samples, bool) or not isinstance(self.n_samples, int) or self.n_samples < 2:
            raise ValueError(f"Expected `n_samples` to be an integer of at least 2, found {self.n_samples!r}.")

    def init(self, rng: jax.Array, dim: int, summary: PairSummary | None = None) -> FlowState:
        """Draw the network, of velocity zero at first."""
        target_dim = dim if summary is None else len(summary.target_mean)
        return self._initial(rng, target_dim, dim)

    def update(self, state: FlowState, batch: Batch, rng: jax.Array, progress: jax.Array) -> tuple[FlowState, dict]:
        """Take one regression step, on latent noise of its own for every pair."""
        rng_latent, rng_path = jax.random.split(rng)
        source, target = batch.source[0], batch.target[0]
        t, point, velocity = self._path(rng_path, jax.random.normal(rng_latent, target.shape), target)

        def loss(params):
            return jnp.mean(jnp.sum((self._velocity(params, point, t, source) - velocity) ** 2, axis=-1))

        return self._step(state, loss, progress)

    def push(self, params: Any, x: jax.Array) -> jax.Array:
        """Conditional mean of the image of every cell."""
        return self._draws(params, x).mean(axis=0)

    def variance(self, params: Any, x: jax.Array) -> jax.Array:
        """Conditional variance of the image of every cell in each dimension."""
        return self._draws(params, x).var(axis=0)

    def sample(self, params: Any, x: jax.Array, keys: jax.Array) -> jax.Array:
        """One image of every cell, from latent noise of its own key."""
        dim = _target_dim(params)
        return self._images(params, x, jax.vmap(lambda key: jax.random.normal(key, (dim,)))(keys))

    def _draws(self, params: Any, x: jax.Array) -> jax.Array:
        """Images of every cell for latent draws that all share, ``(n_samples, n, target_dim)``."""
        latent = _shared_latents(self.n_samples, _target_dim(params))
        return jax.lax.map(lambda z: self._images(params, x, jnp.broadcast_to(z, (len(x), len(z)))), latent)

    def _images(self, params: Any, x: jax.Array, latent: jax.Array) -> jax.Array:
        def field(t: jax.Array, state: jax.Array, row: jax.Array) -> jax.Array:
            return self._velocity(params, state[None], t, x[row][None])[0]

        return self._flow(field, latent, jnp.array([0.0, 1.0]))[-1]


def _target_dim(params: Any) -> int:
    return params["out"]["bias"][...].shape[-1]


def _shared_latents(n: int, dim: int) -> jax.Array:
    """Return standard normal draws in pairs of opposite sign, scaled to variance one in every dimension."""
    half = jax.random.normal(jax.random.key(0), ((n + 1) // 2, dim))
    half = half / jnp.sqrt(jnp.mean(half**2, axis=0))
    return jnp.concatenate([half, -half])[:n]
