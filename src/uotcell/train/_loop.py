"""The loop around the compiled chunks: records, validation, best parameters and early stopping of every pair."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from uotcell.ot._inputs import on_device
from uotcell.ot._quadratic_batch import QuadraticReference
from uotcell.train._checkpoint import Checkpoints
from uotcell.train._data import BATCH_THRESHOLD, QUADRATIC_THRESHOLD
from uotcell.train._failure import VALIDATION, Failure
from uotcell.train._history import History
from uotcell.train._interrupt import Interrupt
from uotcell.train._pairs import Pair
from uotcell.train._program import (
    Carry,
    Settings,
    averaged,
    keep_better,
    push_pairs,
    terms_of,
    train_chunk,
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


class Progress(NamedTuple):
    """Where the run of a group stands after a record.

    The next record makes a new one, so that an interrupt at any moment finds a whole one. ``carry`` and ``best``, the
    parameters to return, are on the device; arrays of the host are ``(n_padded,)``, lists have an entry per pair.
    """

    done: int
    carry: Carry
    best: Any
    best_divergence: np.ndarray
    waited: np.ndarray
    running: np.ndarray
    histories: list[History]
    failures: list[Failure | None]
    interrupted: bool = False


def train_group(group: Group, bar: tqdm, interrupt: Interrupt, checkpoints: Checkpoints | None = None) -> Progress:
    """Train in chunks between records until the last step, an interrupt, or until no pair is left to train."""
    progress = _start(group)
    if checkpoints is not None:
        progress = checkpoints.read(progress)
    if group.pairs.valid is not None and not progress.done:
        _record_baselines(group)
    bar.update(progress.done)
    seconds, first = 0.0, None
    try:
        while progress.done < group.n_iters and progress.running.any():
            before, started = progress.done, time.perf_counter()
            progress, shown = _next_record(group, progress, interrupt)
            if first is None:  # The first chunk compiled; time the others.
                first = progress.done
            else:
                seconds += time.perf_counter() - started
                for history in progress.histories:
                    history.steps_per_second = (progress.done - first) / seconds
            if checkpoints is not None:
                checkpoints.save_if_due(progress, last=progress.done == group.n_iters or not progress.running.any())
            bar.update(progress.done - before)
            bar.set_postfix(shown)
            interrupt.check()
    except KeyboardInterrupt:
        if not progress.done:
            raise
        if checkpoints is not None:
            checkpoints.save(progress)
        interrupt.asked = False
        return _interrupted(group, progress)
    if group.pairs.valid is not None:
        never = progress.best_divergence == np.inf
        failures = [
            failure or (Failure(name, progress.done, VALIDATION, np.nan) if unconverged else None)
            for name, failure, unconverged in zip(group.names, progress.failures, never, strict=False)
        ]
        progress = progress._replace(failures=failures)
    return progress


def _start(group: Group) -> Progress:
    n_pairs, n_padded, state = len(group.names), group.n_padded, group.pairs.state
    return Progress(
        done=0,
        carry=Carry(state, _zeros_like(state.params)),
        best=state.params,
        best_divergence=np.full(n_padded, np.inf),
        waited=np.zeros(n_padded, int),
        running=np.arange(n_padded) < n_pairs,
        histories=group.histories,
        failures=[None] * n_pairs,
    )


def _interrupted(group: Group, progress: Progress) -> Progress:
    left = progress.running & (progress.done < group.n_iters)
    histories = [replace(history, interrupted=bool(i)) for history, i in zip(progress.histories, left, strict=False)]
    return progress._replace(histories=histories, interrupted=True)


def _next_record(group: Group, progress: Progress, interrupt: Interrupt) -> tuple[Progress, dict[str, str]]:
    """Take the steps to the next record and judge them; return where the run then stands and what to show of it."""
    settings, n_pairs, before = group.settings, len(group.names), progress.done
    done = min(before + settings.chunk, group.n_iters)
    carry, losses, batch_errors, broken = train_chunk(
        settings, progress.carry, np.int32(before), group.n_iters, group.pairs.run
    )
    interrupt.wait_for(broken.taken)
    losses, broken = jax.tree.map(np.asarray, (losses, broken))
    steps, recorded = before + broken.taken, progress.running & (broken.taken > 0)
    _warn_of_loose_plans(group, losses, np.asarray(batch_errors), recorded, done)
    params = averaged(settings, carry, steps, group.n_iters)
    divergence = None if group.pairs.valid is None else _validate_map(group, params)
    better = recorded & (True if divergence is None else divergence < progress.best_divergence)
    if settings.method.selects_by_validation or group.patience is not None:
        # Any map is better than none, until the first one that can be compared.
        kept = better | (recorded & (progress.best_divergence == np.inf))
    else:
        kept = recorded
    broke = progress.running & (steps < done)
    waited = np.where(better, 0, progress.waited + 1)
    out_of_patience = progress.running & ~broke & (waited >= (np.inf if group.patience is None else group.patience))
    terms = terms_of(losses)
    histories, failures = list(progress.histories), list(progress.failures)
    for i in np.flatnonzero(recorded):
        values = {name: float(value[i]) for name, value in losses.items()}
        history = histories[i].recorded(int(steps[i]), values, None if divergence is None else float(divergence[i]))
        best_iteration = int(steps[i]) if kept[i] else history.best_iteration
        histories[i] = replace(history, best_iteration=best_iteration, stopped_early=bool(out_of_patience[i]))
    for i in np.flatnonzero(broke):
        failures[i] = Failure(group.names[i], int(steps[i]) + 1, terms[broken.term[i]], float(broken.value[i]))
    shown = {"loss": losses["loss"], **({} if divergence is None else {"held-out": divergence})}
    return Progress(
        done=done,
        carry=carry,
        best=keep_better(kept, params, progress.best),
        best_divergence=progress.best_divergence
        if divergence is None
        else np.where(better, divergence, progress.best_divergence),
        waited=waited,
        running=progress.running & ~broke & ~out_of_patience,
        histories=histories,
        failures=failures,
    ), {name: f"{np.median(values[:n_pairs]):.3g}" for name, values in shown.items()}


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


def _warn_of_loose_plans(group: Group, losses: dict, batch_errors: np.ndarray, recorded: np.ndarray, step: int) -> None:
    """Warn where plans inside batches or losses were far from their optimality conditions."""
    if not recorded.any():
        return
    quadratic = isinstance(group.pairs.run.problem, QuadraticReference)
    threshold = QUADRATIC_THRESHOLD if quadratic else BATCH_THRESHOLD
    if batch_errors[recorded].max() > threshold:
        warnings.warn(
            f"A batch's coupling was {batch_errors[recorded].max():.2g} from its optimality condition (expected "
            f"{threshold:g}) before step {step}. Raise `epsilon`, lower `tau`, or use rescaling='global'.",
            stacklevel=6,
        )
    if "marginal_error" in losses:
        worst = losses["marginal_error"][recorded].max()
        if worst > LOSS_MARGINAL_ERROR:
            warnings.warn(
                f"The plans inside the loss were {worst:.2g} from their marginals on average before step {step} "
                f"(expected {LOSS_MARGINAL_ERROR:g}). Raise the method's epsilon.",
                stacklevel=6,
            )
