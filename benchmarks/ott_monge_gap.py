"""ott's own Monge-gap estimator with the network, losses and optimiser of ours, for `training.py` to compare with."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
import optax
from flax import linen
from ott.neural.methods.monge_gap import MongeGapEstimator, monge_gap_from_samples
from ott.neural.networks.potentials import PotentialMLP
from ott.tools.sinkhorn_divergence import sinkdiv


def losses(image: jax.Array, x: jax.Array, y: jax.Array, *, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """Fitting loss and Monge gap as ott computes them, at an absolute ε."""
    return sinkdiv(image, y, epsilon=epsilon)[0], monge_gap_from_samples(x, image, epsilon=epsilon)


def estimator(
    dim: int, *, hidden: tuple[int, ...], epsilon: float, gap_weight: float, learning_rate, n_iters: int
) -> MongeGapEstimator:
    """Return an untrained estimator whose map is a residual network, as ours."""
    return MongeGapEstimator(
        dim,
        PotentialMLP(dim_hidden=hidden, is_potential=False, act_fn=linen.gelu),
        optimizer=optax.adam(learning_rate),
        fitting_loss=lambda image, y: (sinkdiv(image, y, epsilon=epsilon)[0], None),
        regularizer=lambda x, image: (monge_gap_from_samples(x, image, epsilon=epsilon), None),
        regularizer_strength=gap_weight,
        num_train_iters=n_iters,
    )


def batches(cells: np.ndarray, batch_size: int, seed: int) -> Iterator[jax.Array]:
    """Draw batches for ever, on the device."""
    cells, rng = jax.numpy.asarray(cells), np.random.default_rng(seed)
    while True:
        yield cells[rng.integers(len(cells), size=batch_size)]


def train(model: MongeGapEstimator, x: np.ndarray, y: np.ndarray, *, batch_size: int, steps: int, seed: int) -> None:
    """Take some steps of ott's own training loop, without its progress bar."""
    source, target = batches(x, batch_size, seed), batches(y, batch_size, seed + 1)
    for step in range(steps):
        batch = {"source": next(source), "target": next(target)}
        model.state_neural_net, _ = model.step_fn(model.state_neural_net, batch, None, False, step)
    jax.block_until_ready(model.state_neural_net.params)
