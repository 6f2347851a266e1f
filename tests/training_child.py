"""Training runs in processes of their own, which tests interrupt, kill and starve."""

import multiprocessing
import resource
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import uotcell as uc

METHOD = uc.methods.ICNN(hidden=(4,), n_inner=1)
# A running average, validation, and a parameter update between any two of many records.
SETTINGS = {"n_iters": 160, "batch_size": 16, "log_every": 2, "ema_decay": 0.9, "rng": 1, "progress": False}


class DriftState(NamedTuple):
    """Parameters of `Drift`, and the steps it has taken."""

    params: dict
    step: jax.Array


@dataclass(frozen=True, kw_only=True)
class Drift(uc.methods.Method):
    """Moves every cell by one vector, and breaks as it is told to, at a step counted from one."""

    name: ClassVar[str] = "drift"
    samples: ClassVar[str] = "marginals"
    selects_by_validation: ClassVar[bool] = False

    nan_loss_at: int = 0
    nan_gradient_at: int = 0
    # Only pairs whose target is further to the right than this, in the units of training.
    where_shift_exceeds: float = -1e9
    far: bool = False

    def init(self, rng, dim, summary=None):
        return DriftState({"shift": jnp.zeros(dim)}, jnp.int32(0))

    def update(self, state, batch, rng, progress):
        step, way = state.step + 1, (batch.target[0] - batch.source[0]).mean(0)
        hit, error = way.mean() > self.where_shift_exceeds, way - state.params["shift"]
        gradient = jnp.where(hit & (step == self.nan_gradient_at), jnp.nan, error)
        loss = jnp.where(hit & (step == self.nan_loss_at), jnp.nan, (error**2).sum())
        return DriftState({"shift": state.params["shift"] + 0.1 * gradient}, step), {"loss": loss}

    def push(self, params, x):
        return x + params["shift"] * (1e30 if self.far else 1.0)


def coupling(seed=0, shift=1.0):
    """A small pair."""
    rng = np.random.default_rng(seed)
    return uc.ot.solve_unbalanced(rng.normal(size=(60, 2)), rng.normal(size=(50, 2)) + shift, tau=0.95)


def spawn(target, *arguments, cache, **options):
    """Start a function in a process that is forked, with all imports done, before jax has started a device."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uotcell", "orbax.checkpoint"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(target, arguments, options, sender, str(cache)))
    process.start()
    sender.close()
    return process, receiver


def _run(target, arguments, options, sender, cache):
    # Programs are compiled once for all processes.
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    target(sender, *arguments, **options)


def train(sender, pair, directory):
    """Train, and send that it begins and what came out."""
    sender.send("begins")
    transport_map, history = uc.train.fit(METHOD, pair, checkpoint_dir=directory, **SETTINGS)
    sender.send(outcome(transport_map, history))


def train_with_short_files(sender, limit, *arguments, **options):
    """Train where no file may be longer than ``limit`` bytes, and send the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        uc.train.fit(*arguments, **options)
    except OSError as error:
        sender.send(str(error))


def outcome(transport_map, history):
    """All that an interrupted run has in common with another, as plain values."""
    record = history.to_dict() | {"baseline": tuple(history.baseline.values()), "steps_per_second": None}
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(transport_map.params)], {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in record.items()
    }
