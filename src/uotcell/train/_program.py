"""The compiled programs of a training run: a chunk of steps, and one validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uotcell.methods import Method
from uotcell.ot._divergence import sinkhorn_divergence
from uotcell.train._data import BatchProblem, HeldOut, TrainingData, draw_global, draw_minibatch


@dataclass(frozen=True)
class Settings:
    """Everything about a run that its program is compiled for; equal settings share one program."""

    method: Method
    batch_size: int
    chunk: int
    rescaling: str
    tau: tuple[float, float] | None
    ema_decay: float | None
    source_noise: float


class Carry(NamedTuple):
    """What one step hands to the next."""

    state: Any
    average: Any
    step: jax.Array


@partial(jax.jit, static_argnames=("settings",))
def train_chunk(
    settings: Settings, carry: Carry, rng: jax.Array, n_iters: jax.Array, data: TrainingData, problem: BatchProblem
) -> tuple[Carry, dict[str, jax.Array], jax.Array]:
    """Take ``settings.chunk`` steps, or those left until ``n_iters``; return mean losses and the worst batch error."""
    method, shape = settings.method, (settings.method.draws, settings.batch_size)

    def step(carry: Carry) -> tuple[Carry, tuple[dict, jax.Array]]:
        rng_draw, rng_update, rng_noise = jax.random.split(jax.random.fold_in(rng, carry.step), 3)
        if settings.rescaling == "global":
            batch, error = draw_global(rng_draw, data, shape), jnp.zeros(())
        else:
            batch, error = draw_minibatch(rng_draw, data, shape, problem, settings.tau)
        if settings.source_noise:
            noise = settings.source_noise * jax.random.normal(rng_noise, batch.source.shape)
            batch = batch._replace(source=batch.source + noise)
        state, losses = method.update(carry.state, batch, rng_update, carry.step / n_iters)
        average = carry.average
        if settings.ema_decay is not None:
            decay = settings.ema_decay
            average = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, average, state.params)
        return Carry(state, average, carry.step + 1), (losses, error)

    def step_if_left(carry: Carry, _) -> tuple[Carry, tuple[dict, jax.Array]]:
        _, shapes = jax.eval_shape(step, carry)
        idle = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(carry.step < n_iters, step, lambda c: (c, idle), carry)

    first = carry.step
    carry, (losses, errors) = jax.lax.scan(step_if_left, carry, length=settings.chunk)
    return carry, jax.tree.map(lambda values: values.sum() / (carry.step - first), losses), errors.max()


def averaged(settings: Settings, carry: Carry) -> Any:
    """Parameters to use: the bias-corrected running average, or the last ones without one."""
    if settings.ema_decay is None:
        return carry.state.params
    correction = 1 - settings.ema_decay ** carry.step.astype(jnp.float32)
    return jax.tree.map(lambda mean: mean / correction, carry.average)


@partial(jax.jit, static_argnames=("push",))
def valid_divergence(push: Callable, params: Any, valid: HeldOut, epsilon: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sinkhorn divergence between the pushed held-out source and the held-out target, and whether it converged."""
    return sinkhorn_divergence(push(params, valid.x), valid.y, valid.a, valid.b, epsilon)
