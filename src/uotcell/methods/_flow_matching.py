"""UOT-FM: flow matching on pairs from an unbalanced coupling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from uotcell.methods._base import Batch, PairSummary
from uotcell.methods._flow import FlowMethod, FlowState


@dataclass(frozen=True, kw_only=True)
class FlowMatching(FlowMethod):
    """Map of a flow whose velocity is regressed on the straight ways between paired cells.

    Minimises ``E ‖v(t, (1 − t) x + t y + σz) − (y − x)‖²`` (Lipman et al. 2023; Albergo & Vanden-Eijnden 2023), with
    pairs (x, y) drawn from a coupling: a balanced one is OT-FM (Pooladian et al. 2023; Tong et al. 2024), one with
    τ below 1 is UOT-FM (Eyring, Klein, Uscidda et al. 2024). The nearer the coupling is to optimal, the straighter
    are the paths. The flow has an inverse, positions in between, and a density.

    Parameters
    ----------
    coupling
        ``"plan"`` trains on pairs from the coupling it is fitted to: OT-FM or UOT-FM, as its τ says. ``"independent"``
        pairs cells of the two (rescaled) measures at random: plain flow matching.
    hidden, activation, noise, noise_schedule, clip_norm, solver, n_steps, tolerance
        See :class:`FlowMethod`.
    learning_rate, decay, optimizer
        See :class:`~uotcell.methods.Method`.

    Examples
    --------
    >>> import uotcell as uc
    >>> method = uc.methods.FlowMatching(solver="heun", n_steps=50)  # for uc.tl.fit_trajectory(..., method=method)
    >>> method.name, method.samples
    ('flow_matching', 'pairs')
    """

    name: ClassVar[str] = "flow_matching"
    default_ema_decay: ClassVar[float | None] = 0.999

    coupling: Literal["plan", "independent"] = "plan"

    def __post_init__(self):
        """Refuse options that would otherwise fail late or be ignored."""
        super().__post_init__()
        if self.coupling not in ("plan", "independent"):
            raise ValueError(f"Expected `coupling` to be 'plan' or 'independent', found {self.coupling!r}.")

    @property
    def samples(self) -> str:
        """Pairs from the plan, or independent draws."""
        return "pairs" if self.coupling == "plan" else "marginals"

    def init(self, rng: jax.Array, dim: int, summary: PairSummary | None = None) -> FlowState:
        """Draw the network, of velocity zero at first."""
        return self._initial(rng, dim, 0)

    def update(self, state: FlowState, batch: Batch, rng: jax.Array, progress: jax.Array) -> tuple[FlowState, dict]:
        """Take one regression step."""
        t, point, velocity = self._path(rng, batch.source[0], batch.target[0])

        def loss(params):
            return jnp.mean(jnp.sum((self._velocity(params, point, t) - velocity) ** 2, axis=-1))

        return self._step(state, loss, progress)

    def push(self, params: Any, x: jax.Array) -> jax.Array:
        """Follow the flow from source to target."""
        return self.trajectory(params, x, jnp.array([0.0, 1.0]))[-1]

    def pull(self, params: Any, y: jax.Array) -> jax.Array:
        """Follow the flow backwards."""
        return self.trajectory(params, y, jnp.array([1.0, 0.0]))[-1]

    def interpolate(self, params: Any, x: jax.Array, t: jax.Array) -> jax.Array:
        """Follow the flow until ``t``."""
        return self.trajectory(params, x, jnp.stack([jnp.zeros_like(t), t]))[-1]

    def interpolate_back(self, params: Any, y: jax.Array, t: jax.Array) -> jax.Array:
        """Follow the flow backwards until ``t``."""
        return self.trajectory(params, y, jnp.stack([jnp.ones_like(t), t]))[-1]

    def trajectory(self, params: Any, x: jax.Array, times: jax.Array) -> jax.Array:
        """Positions at all times ``(k, n, dim)`` of cells that are at ``x`` at the first of them."""
        return self._flow(lambda t, state, _: self.velocity(params, state[None], t)[0], x, times)

    def velocity(self, params: Any, x: jax.Array, t: jax.Array) -> jax.Array:
        """Velocity at ``x`` and time ``t``."""
        return self._velocity(params, x, t)

    def log_density_change(self, params: Any, x: jax.Array, t: jax.Array) -> jax.Array:
        """``log p_t(x_t) − log p_0(x)``, minus the divergence of the velocity along the way, ``(n,)``."""
        dim = x.shape[-1]

        def field(time: jax.Array, state: jax.Array, _: jax.Array) -> jax.Array:
            def at(position: jax.Array) -> jax.Array:
                return self.velocity(params, position[None], time)[0]

            velocity, tangents = jax.vmap(lambda e: jax.jvp(at, (state[:dim],), (e,)), out_axes=(None, 0))(jnp.eye(dim))
            return jnp.append(velocity, -jnp.trace(tangents))

        start = jnp.concatenate([x, jnp.zeros((len(x), 1))], axis=-1)
        return self._flow(field, start, jnp.stack([jnp.zeros_like(t), t]))[-1, :, -1]
