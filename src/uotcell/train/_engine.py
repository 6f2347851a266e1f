"""The one training loop: draws, updates, averages and validates on the device."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from uotcell._errors import ConvergenceError
from uotcell.methods import Method, TransportMap
from uotcell.ot import UnbalancedCoupling
from uotcell.ot._inputs import as_key
from uotcell.train._data import (
    BATCH_THRESHOLD,
    BatchProblem,
    HeldOut,
    TrainingData,
    held_out,
    split_rows,
    training_data,
)
from uotcell.train._device import describe_device, warn_if_gpu_unused
from uotcell.train._history import History
from uotcell.train._program import Carry, Settings, averaged, train_chunk, valid_divergence

# ε of the validation divergence, in units of the coupling's cost scale: it depends on the data, not on τ. Smaller ε
# only sees sampling noise: with 183 cells in 30 dimensions, two halves of one population are as far apart at 0.05 as
# two time points are (211 against 244), while at 0.3 they are a third as far (23 against 76).
VALID_EPSILON = 0.3


class Run(NamedTuple):
    """What stays the same over a run."""

    settings: Settings
    n_iters: int
    rng: jax.Array
    data: TrainingData
    problem: BatchProblem
    valid: HeldOut | None


def fit(
    method: Method,
    coupling: UnbalancedCoupling,
    *,
    n_iters: int,
    batch_size: int = 256,
    rng: jax.Array | int = 0,
    rescaling: str = "global",
    valid_fraction: float = 0.1,
    log_every: int | None = None,
    patience: int | None = None,
    ema_decay: float | None = None,
    source_noise: float = 0.0,
    progress: bool = True,
) -> tuple[TransportMap, History]:
    """Train a map between the rescaled measures of a coupling.

    Parameters
    ----------
    method
        The estimator.
    coupling
        The solved pair.
    n_iters
        Training steps.
    batch_size
        Cells per batch and side.
    rng
        Key or seed; the same one gives bit-equal results on the same machine.
    rescaling
        ``"global"`` draws from the rescaled measures of ``coupling``. ``"minibatch"`` draws from the prior measures
        and solves a coupling of its own, with the same ε, τ and cost scale, for every batch: the published
        algorithm.
    valid_fraction
        Share of the cells of each side held out from training. The returned parameters are those with the lowest
        Sinkhorn divergence between the pushed held-out source and the held-out target; 0 returns the last ones.
    log_every
        Steps between records; a twentieth of ``n_iters`` by default. The host waits for the device only then.
    patience
        Stop after this many records without a better one.
    ema_decay
        Average parameters exponentially with this decay (bias-corrected) and use the average.
    source_noise
        Standard deviation of Gaussian noise added to the source cells of every batch, in units of the root mean
        square spread per dimension. Smooths the map between few cells in many dimensions, at the price of a
        contraction; 0 trains on the cells as they are.
    progress
        Show a progress bar.

    Returns
    -------
    The fitted map and the record of the run.

    Raises
    ------
    ValueError
        If an argument is out of range.
    uotcell.ConvergenceError
        If a loss, a batch's coupling or the validation divergence is not finite.
    """
    if method.samples != "marginals":
        raise ValueError(f"Expected a method that trains on 'marginals', found {method.name!r}, on {method.samples!r}.")
    _check_arguments(n_iters, batch_size, rescaling, valid_fraction, log_every, patience, ema_decay, source_noise)
    rng_rows, rng_columns, rng_init, rng_train = jax.random.split(as_key(rng), 4)
    rows, valid_rows = split_rows(rng_rows, len(coupling.x), valid_fraction)
    columns, valid_columns = split_rows(rng_columns, len(coupling.y), valid_fraction)
    if not (len(rows) and len(columns)):
        raise ValueError(
            f"Expected `valid_fraction` to leave at least one cell a side to train on, found {valid_fraction} of "
            f"{len(coupling.x)} and {len(coupling.y)} cells. Lower it."
        )
    if valid_fraction and not (len(valid_rows) and len(valid_columns)):
        raise ValueError(
            f"Expected `valid_fraction` to hold out at least one cell a side, found {valid_fraction} of "
            f"{len(coupling.x)} and {len(coupling.y)} cells. Raise it, or set it to 0 to train without validation."
        )
    data, moments = training_data(coupling, rows, columns, rescaling=rescaling)
    chunk = min(log_every or max(1, n_iters // 20), n_iters)
    run = Run(
        # Batches of rescaled measures know no τ: leaving it out lets fits of all τ share one program.
        settings=Settings(
            method=method,
            batch_size=batch_size,
            chunk=chunk,
            rescaling=rescaling,
            tau=coupling.tau if rescaling == "minibatch" else None,
            ema_decay=ema_decay,
            source_noise=float(source_noise),
        ),
        n_iters=n_iters,
        rng=rng_train,
        data=data,
        problem=BatchProblem.of(coupling),
        valid=held_out(coupling, valid_rows, valid_columns, data) if valid_fraction else None,
    )
    history = History(device=describe_device(), valid_epsilon=VALID_EPSILON * coupling.scale)
    warn_if_gpu_unused()
    if run.valid is not None:
        history.baseline = _baselines(run, coupling, columns, history)
    params = _train(run, method.init(rng_init, coupling.x.shape[1], moments), patience, history, progress)
    shift = coupling.shift + np.asarray(data.shift, np.float64)
    return TransportMap(method=method, params=params, shift=shift, scale=float(data.scale)), history


def _train(run: Run, state: Any, patience: int | None, history: History, progress: bool) -> Any:
    """Train in chunks between records; fill ``history`` and return the best parameters."""
    settings, best, best_divergence, waited, step, timed_from = run.settings, None, np.inf, 0, 0, None
    carry = Carry(state, jax.tree.map(jnp.zeros_like, state.params), jnp.array(0, jnp.int32))
    title = f"{settings.method.name} [{history.device}]"
    with tqdm(total=run.n_iters, disable=not progress, unit="step", desc=title) as bar:
        while step < run.n_iters:
            carry, losses, batch_error = train_chunk(settings, carry, run.rng, run.n_iters, run.data, run.problem)
            done, step = step, int(carry.step)
            losses = {name: float(value) for name, value in losses.items()}
            _check_finite(losses, float(batch_error), step)
            params = averaged(settings, carry)
            divergence = None if run.valid is None else _validate(run, settings.method.push, params, history)
            history.record(step, losses, divergence)
            if divergence is None or divergence < best_divergence:
                best, best_divergence, history.best_iteration, waited = params, divergence, step, 0
            else:
                waited += 1
            if timed_from is None:  # The first chunk compiled; time the others.
                timed_from = (time.perf_counter(), step)
            else:
                history.steps_per_second = (step - timed_from[1]) / (time.perf_counter() - timed_from[0])
            bar.update(step - done)
            shown = {"loss": losses["loss"], **({} if divergence is None else {"held-out": divergence})}
            bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()})
            if patience is not None and waited >= patience:
                history.stopped_early = True
                break
    if best is None:
        raise ConvergenceError(
            f"None of the {len(history.iteration)} validation divergences converged: the map sends held-out cells far "
            "from the target. Lower `learning_rate`, or train on more cells."
        )
    return best


def _validate(run: Run, push: Callable, params: Any, history: History) -> float:
    """Return the validation divergence in units of the squared representation; NaN when it did not converge."""
    scale = float(run.data.scale)
    value, converged = valid_divergence(push, params, run.valid, history.valid_epsilon / scale**2)
    return float(value) * scale**2 if converged else np.nan


def _baselines(run: Run, coupling: UnbalancedCoupling, columns: np.ndarray, history: History) -> dict[str, float]:
    """Return the validation divergence of the identity and of the entropic map towards the training targets."""
    x, shift, scale = run.valid.x, np.asarray(run.data.shift) + coupling.shift, float(run.data.scale)
    image = coupling.push(np.asarray(x) * scale + shift, columns=columns)
    images = {"identity": x, "entropic map": jnp.asarray((image - shift) / scale, jnp.float32)}
    return {name: _validate(run, _given_image, image, history) for name, image in images.items()}


def _given_image(image: jax.Array, x: jax.Array) -> jax.Array:
    return image


def _check_finite(losses: dict[str, float], batch_error: float, step: int) -> None:
    bad = sorted(name for name, value in losses.items() if not np.isfinite(value))
    if bad:
        raise ConvergenceError(
            f"Expected finite losses, found {', '.join(f'{name}={losses[name]}' for name in bad)} within the records "
            f"up to step {step}. Lower `learning_rate`, or check the representation for far outliers."
        )
    if not np.isfinite(batch_error):
        raise ConvergenceError(
            f"A batch's coupling was not finite before step {step}: it transports no mass. Raise `tau`, `epsilon` or "
            "`batch_size`, or use rescaling='global'."
        )
    if batch_error > BATCH_THRESHOLD:
        warnings.warn(
            f"A batch's coupling was {batch_error:.2g} from its optimality condition (expected {BATCH_THRESHOLD:g}) "
            f"before step {step}. Raise `epsilon`, lower `tau`, or use rescaling='global'.",
            stacklevel=4,
        )


def _check_arguments(
    n_iters, batch_size, rescaling, valid_fraction, log_every, patience, ema_decay, source_noise
) -> None:
    if rescaling not in ("global", "minibatch"):
        raise ValueError(f"Expected `rescaling` to be 'global' or 'minibatch', found {rescaling!r}.")
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"Expected `valid_fraction` to be in [0, 1), found {valid_fraction}.")
    if ema_decay is not None and not 0 < ema_decay < 1:
        raise ValueError(f"Expected `ema_decay` to be in (0, 1), found {ema_decay}.")
    if not 0 <= source_noise < np.inf:
        raise ValueError(f"Expected `source_noise` to be a non-negative number, found {source_noise}.")
    counts = {"n_iters": n_iters, "batch_size": batch_size, "log_every": log_every, "patience": patience}
    for name, value in counts.items():
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise ValueError(f"Expected `{name}` to be an integer of at least 1, found {value!r}.")
    if patience is not None and valid_fraction == 0:
        raise ValueError("Expected `valid_fraction` above 0 with `patience`: there is nothing to be patient about.")
