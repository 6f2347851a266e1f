"""The compiled programs of a training run: a chunk of steps, and one validation, of one pair or of many at once.

Every array of a run has a leading axis of pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uotcell.methods import Method
from uotcell.ot._divergence import sinkhorn_divergence
from uotcell.ot._quadratic_batch import QuadraticReference
from uotcell.train._data import BatchProblem, HeldOut, TrainingData, draw_global, draw_minibatch, draw_pairs

# A default running average is over one part in so many of a run, counted from its end.
EMA_SPANS = 10
# What can break in a step besides its losses.
COUPLING, PARAMETERS = "coupling", "parameters"


@dataclass(frozen=True)
class Settings:
    """Everything about a run that its program is compiled for; equal settings share one program."""

    method: Method
    batch_size: int
    chunk: int
    rescaling: str
    ema_decay: float | None
    source_noise: float
    lockstep: bool = True
    ema_shrinks: bool = False


class Carry(NamedTuple):
    """What one step of a pair hands to the next."""

    state: Any
    average: Any


class Broken(NamedTuple):
    """Where the steps of a chunk stopped being finite, for every pair: ``(n_pairs,)``.

    ``taken`` counts the good steps; fewer than asked for mean that the next one broke, first in ``term``, a place in
    :func:`terms_of`, whose value was ``value``. From there on the pair keeps the state it had.
    """

    taken: jax.Array
    term: jax.Array
    value: jax.Array


class PairRun(NamedTuple):
    """What stays the same over the run of a pair."""

    rng: jax.Array
    data: TrainingData
    problem: BatchProblem | QuadraticReference | None


@partial(jax.jit, static_argnames=("settings",))
def train_chunk(
    settings: Settings, carry: Carry, step: jax.Array, n_iters: jax.Array, run: PairRun
) -> tuple[Carry, dict[str, jax.Array], jax.Array, Broken]:
    """Take ``settings.chunk`` steps of all pairs, or those left until ``n_iters``, or until one of a pair breaks.

    Returns the new carry, and for every pair mean losses and the worst batch error of the good steps, ``(n_pairs,)``,
    and where it broke.
    """

    def chunk(carry: Carry, run: PairRun):
        return _chunk_of_one_pair(settings, carry, step, n_iters, run)

    (carry, broken), (losses, errors) = over_pairs(chunk, (carry, run), lockstep=settings.lockstep)
    mean_losses = jax.tree.map(lambda values: values.sum(axis=1) / jnp.maximum(broken.taken, 1), losses)
    return carry, mean_losses, errors.max(axis=1), broken


def _chunk_of_one_pair(settings: Settings, carry: Carry, first: jax.Array, n_iters: jax.Array, run: PairRun):
    method, shape = settings.method, (settings.method.draws, settings.batch_size)

    def step(carry: Carry, i: jax.Array) -> tuple[Carry, dict, jax.Array]:
        rng_draw, rng_update, rng_noise = jax.random.split(jax.random.fold_in(run.rng, i), 3)
        if settings.rescaling == "minibatch":
            batch, error = draw_minibatch(rng_draw, run.data, shape, run.problem, method.samples)
        else:
            draw = draw_pairs if method.samples == "pairs" else draw_global
            batch, error = draw(rng_draw, run.data, shape), jnp.zeros(())
        if settings.source_noise:
            noise = settings.source_noise * jax.random.normal(rng_noise, batch.source.shape)
            batch = batch._replace(source=batch.source + noise)
        state, losses = method.update(carry.state, batch, rng_update, i / n_iters)
        average = carry.average
        if settings.ema_decay is not None:
            decay = decay_of(settings, n_iters)
            average = jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, average, state.params)
        return Carry(state, average), losses, error

    def checked_step(carry: Carry, broken: Broken, i: jax.Array):
        new, losses, error = step(carry, i)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new.state.params)]
        values = jnp.stack([error, *(losses[name] for name in terms_of(losses)[1:-1]), 0.0])
        good = jnp.isfinite(values).at[-1].set(jnp.array(finite, bool).all())
        fine = good.all() & (broken.term < 0)
        first = Broken(broken.taken, jnp.argmin(good), values[jnp.argmin(good)])
        unchanged = jax.tree.map(partial(jnp.where, broken.term < 0), first, broken)
        kept = jax.tree.map(
            partial(jnp.where, fine), (new, broken._replace(taken=broken.taken + 1)), (carry, unchanged)
        )
        return kept, jax.tree.map(lambda value: jnp.where(fine, value, 0.0), (losses, error))

    def step_if_left(carry: tuple[Carry, Broken], i: jax.Array):
        _, shapes = jax.eval_shape(checked_step, *carry, i)
        idle = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(i < n_iters, checked_step, lambda kept, broken, _: ((kept, broken), idle), *carry, i)

    unbroken = Broken(jnp.int32(0), jnp.int32(-1), jnp.float32(0.0))
    return jax.lax.scan(step_if_left, (carry, unbroken), first + jnp.arange(settings.chunk))


def terms_of(losses: dict) -> list[str]:
    """Names of what a step computes, in its order: the total follows from the other losses, parameters from all."""
    return [COUPLING, *sorted(losses, key=lambda name: (name == "loss", name)), PARAMETERS]


def over_pairs(function: Callable, arguments: tuple, *, lockstep: bool):
    """Apply ``function`` to every pair along the leading axes: in lockstep, or one after another in one program.

    Lockstep (``vmap``) is what accelerators want. A CPU does not gain from wider batches, but loses by waiting in
    every Sinkhorn solve for the slowest pair.
    """
    if len(jax.tree.leaves(arguments)[0]) == 1:
        out = function(*jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: leaf[None], out)
    if lockstep:
        return jax.vmap(function)(*arguments)
    return jax.lax.map(lambda args: function(*args), arguments)


def decay_of(settings: Settings, n_iters: jax.Array | int) -> jax.Array:
    """Decay of the running average; a default one is lower in short runs: it must not reach back to their beginning."""
    if not settings.ema_shrinks:
        return jnp.float32(settings.ema_decay)
    return jnp.clip(1 - EMA_SPANS / n_iters, 0.0, settings.ema_decay).astype(jnp.float32)


def averaged(settings: Settings, carry: Carry, steps: np.ndarray, n_iters: int) -> Any:
    """Parameters to use: the running average, corrected for the ``(n_pairs,)`` steps of each, or the last ones."""
    if settings.ema_decay is None:
        return carry.state.params
    # No step has left nothing to correct.
    correction = 1 - float(decay_of(settings, n_iters)) ** np.maximum(steps, 1)
    return _divided(carry.average, correction.astype(np.float32))


@jax.jit
def _divided(tree: Any, numbers: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf / numbers.reshape(-1, *[1] * (leaf.ndim - 1)), tree)


@jax.jit
def keep_better(better: jax.Array, new: Any, old: Any) -> Any:
    """Take the new parameters of those pairs that ``better`` marks, ``(n_pairs,)``."""
    return jax.tree.map(lambda *leaves: jnp.where(better.reshape(-1, *[1] * (leaves[0].ndim - 1)), *leaves), new, old)


@partial(jax.jit, static_argnames=("n_pairs",))
def unstack(tree: Any, n_pairs: int) -> list[Any]:
    """Parameters of each of the first pairs."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(n_pairs)]


@partial(jax.jit, static_argnames=("method",))
def push_pairs(method: Method, params: Any, x: jax.Array) -> jax.Array:
    """Images of cells of every pair, ``(n_pairs, n, dim)``, by its own parameters; draws where images are random."""
    keys = jax.random.split(jax.random.key(0), x.shape[1])
    return jax.vmap(lambda p, cells: method.sample(p, cells, keys))(params, x)


@partial(jax.jit, static_argnames=("lockstep",))
def valid_divergence(
    image: jax.Array, valid: HeldOut, epsilon: jax.Array, *, lockstep: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Sinkhorn divergence between the image of every pair's held-out source and its target, and if it converged."""

    def divergence(image: jax.Array, valid: HeldOut, epsilon: jax.Array):
        return sinkhorn_divergence(image, valid.y, valid.a, valid.b, epsilon)

    return over_pairs(divergence, (image, valid, epsilon), lockstep=lockstep)
