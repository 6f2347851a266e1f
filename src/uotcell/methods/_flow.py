"""What flow matching and GENOT share: a velocity network, its training targets and its flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from uotcell.methods._base import Method
from uotcell.methods._ode import check_solver, flow
from uotcell.networks import MLP_ACTIVATIONS, VelocityNetwork

# The noise of a bridge changes infinitely fast at its ends: times stay this far from them in training.
BRIDGE_MARGIN = 1e-3


class FlowState(NamedTuple):
    """Parameters of the velocity network and optimiser state."""

    params: Any
    optimizer: Any


@dataclass(frozen=True, kw_only=True)
class FlowMethod(Method):
    """A velocity network that is trained by regression and followed by an ODE solver.

    Parameters
    ----------
    hidden
        Widths of the layers of the network.
    activation
        ``"gelu"``, ``"silu"``, ``"relu"`` or ``"tanh"``.
    noise
        Standard deviation σ of the noise around the straight path of a pair, in units of the root mean square spread
        per dimension.
    noise_schedule
        ``"constant"``: σ all along. ``"bridge"``: ``σ √(t(1 − t))``, none at the ends (a Brownian bridge).
    clip_norm
        Gradients are clipped to this global norm before they reach Adam.
    solver, n_steps, tolerance
        How the flow is followed: by ``n_steps`` equal steps of ``"tsit5"``, ``"heun"`` or ``"euler"``; or, with
        ``n_steps=None``, by steps of ``"tsit5"`` that are adapted to an error of ``tolerance`` per step for every cell.
        Equal steps make images a smooth function of cells.
    learning_rate, decay, optimizer
        See :class:`~uotcell.methods.Method`.
    """

    selects_by_validation: ClassVar[bool] = False

    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "silu"
    noise: float = 0.0
    noise_schedule: Literal["constant", "bridge"] = "constant"
    clip_norm: float = 1.0
    solver: Literal["tsit5", "heun", "euler"] = "tsit5"
    # Against 400 steps, images are off by 2e-4 of the move on EMT and 2e-5 on reprogramming cells. With 20 steps,
    # which take twice the time, they are off by rounding.
    n_steps: int | None = 10
    tolerance: float = 1e-3

    def __post_init__(self):
        """Refuse options that would otherwise fail late or be ignored."""
        super().__post_init__()
        known = {"activation": tuple(MLP_ACTIVATIONS), "noise_schedule": ("constant", "bridge")}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"Expected `{name}` to be one of {list(values)}, found {getattr(self, name)!r}.")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"Expected positive `hidden`, found {self.hidden}.")
        if not self.noise >= 0 or not self.clip_norm > 0:
            raise ValueError(
                "Expected a non-negative `noise` and a positive `clip_norm`, found "
                f"{self.noise!r} and {self.clip_norm!r}."
            )
        check_solver(self.solver, self.n_steps, self.tolerance)

    def default_optimizer(self) -> optax.GradientTransformation:
        """Return Adam behind a clipped gradient."""
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), optax.adam(self.learning_rate))

    def _path(self, rng: jax.Array, start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Draw times, one from each of as many equal parts of [0, 1] as there are pairs, and points on their paths.

        Returns times ``(n,)``, points and the velocities to regress on, both ``(n, dim)``.
        """
        rng_time, rng_noise = jax.random.split(rng)
        n = len(start)
        t = (jnp.arange(n) + jax.random.uniform(rng_time, (n,))) / n
        if self.noise and self.noise_schedule == "bridge":
            t = jnp.clip(t, BRIDGE_MARGIN, 1 - BRIDGE_MARGIN)
        s = t[:, None]
        point, velocity = (1 - s) * start + s * end, end - start
        if self.noise:
            z = self.noise * jax.random.normal(rng_noise, start.shape)
            if self.noise_schedule == "bridge":
                spread = jnp.sqrt(s * (1 - s))
                return t, point + spread * z, velocity + (1 - 2 * s) / (2 * spread) * z
            point = point + z
        return t, point, velocity

    def _step(self, state: FlowState, loss: Callable, progress: jax.Array) -> tuple[FlowState, dict]:
        value, gradient = jax.value_and_grad(loss)(state.params)
        params, optimizer = self.apply_gradient(state.params, state.optimizer, gradient, progress)
        return FlowState(params, optimizer), {"loss": value}

    def _initial(self, rng: jax.Array, dim: int, condition_dim: int) -> FlowState:
        params = _initial_params(self, dim, condition_dim, rng)
        return FlowState(params, self.init_optimizer(params))

    def _velocity(self, params: Any, x: jax.Array, t: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        condition_dim = 0 if condition is None else condition.shape[-1]
        return nnx.merge(_structure(self, x.shape[-1], condition_dim), params)(x, t, condition)

    def _flow(self, field: Callable, x: jax.Array, times: jax.Array) -> jax.Array:
        return flow(field, x, times, solver=self.solver, n_steps=self.n_steps, tolerance=self.tolerance)


@lru_cache
def _structure(method: FlowMethod, dim: int, condition_dim: int):
    """Return the static part of the network, one object for equal settings, as compiled programs are keyed by it."""
    return nnx.split(nnx.eval_shape(lambda: _network(method, dim, condition_dim, jax.random.key(0))))[0]


@partial(jax.jit, static_argnames=("method", "dim", "condition_dim"))
def _initial_params(method: FlowMethod, dim: int, condition_dim: int, rng: jax.Array):
    return nnx.split(_network(method, dim, condition_dim, rng))[1]


def _network(method: FlowMethod, dim: int, condition_dim: int, rng: jax.Array) -> VelocityNetwork:
    return VelocityNetwork(
        dim, method.hidden, activation=method.activation, condition_dim=condition_dim, rngs=nnx.Rngs(params=rng)
    )
