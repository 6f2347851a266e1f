"""The loop around the compiled chunks: records, validation, best parameters and early stopping of every pair."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from uotcell._errors import ConvergenceError
from uotcell.ot._inputs import on_device
from uotcell.ot._quadratic_batch import QuadraticReference
from uotcell.train._data import BATCH_THRESHOLD, QUADRATIC_THRESHOLD
from uotcell.train._history import History
from uotcell.train._pairs import Pair
from uotcell.train._program import (
    Carry,
    Settings,
    averaged,
    keep_better,
    push_pairs,
    train_chunk,
    unstack,
    valid_divergence,
)

# Accepted violation of the marginals of a plan solved inside a loss, on average over the steps of a record.
LOSS_MARGINAL_ERROR = 0.05


@dataclass(frozen=True)
class Group:
    """Pairs that train together; arrays have a leading axis of pairs, of which the last may be padding."""

    settings: Settings
    n_iters: int
    names: list[str]
    pairs: Pair
    histories: list[History]
    patience: int | None
    same_space: bool

    @property
    def n_padded(self) -> int:
        """Pairs including padding."""
        return len(self.pairs.run.data.frame.scale)


def train_group(group: Group, bar: tqdm) -> list[Any]:
    """Train in chunks between records; fill the histories and return the best parameters of every pair."""
    settings, n_pairs, state = group.settings, len(group.names), group.pairs.state
    if group.pairs.valid is not None:
        _record_baselines(group)
    carry, step = Carry(state, _zeros_like(state.params)), on_device(0, np.int32)
    best, best_divergence = state.params, np.full(group.n_padded, np.inf)
    waited, running = np.zeros(group.n_padded, int), np.arange(group.n_padded) < n_pairs
    timed_from, done = None, 0
    while done < group.n_iters and running.any():
        carry, step, losses, batch_errors = train_chunk(settings, carry, step, group.n_iters, group.pairs.run)
        before, done = done, int(step)
        losses = {name: np.asarray(values) for name, values in losses.items()}
        _check_losses(group, losses, np.asarray(batch_errors), running, done)
        params = averaged(settings, carry, done, group.n_iters)
        divergence = None if group.pairs.valid is None else _validate_map(group, params)
        better = running & (True if divergence is None else divergence < best_divergence)
        kept = better if settings.method.selects_by_validation or group.patience is not None else running
        best = keep_better(kept, params, best)
        for i in np.flatnonzero(running):
            values = {name: float(value[i]) for name, value in losses.items()}
            group.histories[i].record(done, values, None if divergence is None else float(divergence[i]))
            group.histories[i].best_iteration = done if kept[i] else group.histories[i].best_iteration
        if divergence is not None:
            best_divergence = np.where(better, divergence, best_divergence)
        waited = np.where(better, 0, waited + 1)
        if group.patience is not None:
            for i in np.flatnonzero(running & (waited >= group.patience)):
                group.histories[i].stopped_early, running[i] = True, False
        if timed_from is None:  # The first chunk compiled; time the others.
            timed_from = (time.perf_counter(), done)
        else:
            speed = (done - timed_from[1]) / (time.perf_counter() - timed_from[0])
            for history in group.histories:
                history.steps_per_second = speed
        bar.update(done - before)
        shown = {"loss": losses["loss"], **({} if divergence is None else {"held-out": divergence})}
        bar.set_postfix({name: f"{np.median(values[:n_pairs]):.3g}" for name, values in shown.items()})
    failed = (
        []
        if group.pairs.valid is None
        else [n for n, d in zip(group.names, best_divergence, strict=False) if d == np.inf]
    )
    if failed:
        raise ConvergenceError(
            f"None of the validation divergences of {_listed(failed)} converged: the map sends held-out cells far from "
            "the target. Lower `learning_rate`, or train on more cells."
        )
    return unstack(best, n_pairs)


def _validate_map(group: Group, params: Any) -> np.ndarray:
    return _validate(group, push_pairs(group.settings.method, params, group.pairs.valid.x))


def _validate(group: Group, image: jax.Array) -> np.ndarray:
    """Return validation divergences in units of the squared representation; NaN where one did not converge."""
    scale = np.asarray(group.pairs.run.data.frame.target_scale, np.float64)
    epsilon = np.ones(group.n_padded)
    epsilon[: len(group.names)] = [history.valid_epsilon for history in group.histories]
    epsilon = on_device(epsilon / scale**2)
    values, converged = valid_divergence(image, group.pairs.valid, epsilon, lockstep=group.settings.lockstep)
    return np.where(converged, np.asarray(values, np.float64) * scale**2, np.nan)


def _record_baselines(group: Group) -> None:
    """Record the validation divergence of the identity, where source and target share a space, and the entropic map."""
    images = {"identity": group.pairs.valid.x} if group.same_space else {}
    images["entropic map"] = group.pairs.entropic_image
    for name, image in images.items():
        for history, divergence in zip(group.histories, _validate(group, image), strict=False):
            history.baseline[name] = float(divergence)


def _zeros_like(params: Any) -> Any:
    return jax.tree.map(lambda leaf: on_device(np.zeros(leaf.shape), leaf.dtype), params)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _check_losses(group: Group, losses: dict, batch_errors: np.ndarray, running: np.ndarray, step: int) -> None:
    n_pairs, names = len(group.names), np.asarray(group.names)
    running = running[:n_pairs]
    for name, values in losses.items():
        bad = running & ~np.isfinite(values[:n_pairs])
        if bad.any():
            raise ConvergenceError(
                f"Expected finite losses, found {name}={values[:n_pairs][bad][0]} for {_listed(list(names[bad]))} "
                f"within the records up to step {step}. Lower `learning_rate`, or check the representation for far "
                "outliers."
            )
    batch_errors = batch_errors[:n_pairs]
    bad = running & ~np.isfinite(batch_errors)
    if bad.any():
        raise ConvergenceError(
            f"A batch's coupling of {_listed(list(names[bad]))} was not finite before step {step}: it transports no "
            "mass. Raise `tau`, `epsilon` or `batch_size`, or use rescaling='global'."
        )
    quadratic = isinstance(group.pairs.run.problem, QuadraticReference)
    threshold = QUADRATIC_THRESHOLD if quadratic else BATCH_THRESHOLD
    if batch_errors[running].max() > threshold:
        warnings.warn(
            f"A batch's coupling was {batch_errors[running].max():.2g} from its optimality condition (expected "
            f"{threshold:g}) before step {step}. Raise `epsilon`, lower `tau`, or use rescaling='global'.",
            stacklevel=5,
        )
    if "marginal_error" in losses:
        worst = losses["marginal_error"][:n_pairs][running].max()
        if worst > LOSS_MARGINAL_ERROR:
            warnings.warn(
                f"The plans inside the loss were {worst:.2g} from their marginals on average before step {step} "
                f"(expected {LOSS_MARGINAL_ERROR:g}). Raise the method's epsilon.",
                stacklevel=5,
            )
