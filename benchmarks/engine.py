"""The engine and the bare update, as the tables of `training.py` time them."""

from __future__ import annotations

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from uotcell.methods import Batch, Method
from uotcell.ot import UnbalancedCoupling
from uotcell.train._data import TrainingData, training_data
from uotcell.train._program import Carry, PairRun, Settings, train_chunk

DIM, N_CELLS, BATCH, EPSILON, RUN_STEPS = 50, 4_000, 1_024, 0.01, 2_000


def cells(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian clouds whose variances fall off like those of principal components."""
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(DIM) / 5)
    x, y = rng.normal(size=(2, N_CELLS, DIM)) * spread
    return x, 1.2 * y + 1.5 * spread / np.sqrt(DIM)


def timed(function, *arguments) -> tuple[float, object]:
    """Seconds until the answer is ready, and the answer."""
    started = time.perf_counter()
    out = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - started, out


def bare_update(method: Method, steps: int):
    """Compiled update, scanned over one batch."""

    @jax.jit
    def run(state, batch: Batch, rng):
        return jax.lax.scan(lambda s, i: method.update(s, batch, rng, i / RUN_STEPS), state, jnp.arange(steps))[0]

    return run


def cells_on_device(method: Method, coupling: UnbalancedCoupling) -> tuple[TrainingData, object]:
    """Cells as ``uc.train.fit`` draws from them, with partners of every cell for methods that take pairs."""
    rows = np.arange(N_CELLS)
    data, summary, _ = training_data(
        coupling, rows, rows, rescaling="global", samples=method.samples, rng=jax.random.key(1)
    )
    return data, summary


def engine_step(method: Method, coupling: UnbalancedCoupling, batch_size: int, steps: int):
    """Cells on the device, what ``uc.train.fit`` runs for ``steps`` steps, and the state it starts from."""
    data, summary = cells_on_device(method, coupling)
    state = method.init(jax.random.key(0), DIM, summary)
    run = PairRun(jax.random.key(0), data, None)
    stacked, run = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (state, run))
    carry = Carry(stacked, jax.tree.map(jnp.zeros_like, stacked.params))
    settings = Settings(method, batch_size, steps, "global", method.default_ema_decay, 0.0)
    return data, partial(train_chunk, settings, carry, 0, RUN_STEPS, run), state
