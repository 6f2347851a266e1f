"""The one training engine: draws, updates, averages and validates on the device, for one pair or many at once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from uotcell._errors import ConvergenceError
from uotcell._memory import check_memory, memory_bytes, on_accelerator, parse_memory
from uotcell.methods import Method, TransportMap, resolve_method
from uotcell.ot import Coupling
from uotcell.ot._geometry import DENSE_BYTES, mean_squared_distance
from uotcell.ot._inputs import as_key
from uotcell.train._checkpoint import Checkpoints
from uotcell.train._data import Frame
from uotcell.train._device import describe_device, warn_if_gpu_unused
from uotcell.train._failure import describe_failures, listed
from uotcell.train._history import History
from uotcell.train._interrupt import held_back_interrupt
from uotcell.train._loop import Group, Progress, train_group
from uotcell.train._pairs import Pair, prepare_pairs, stack
from uotcell.train._program import Settings, unstack

# ε of the validation divergence, in units of the mean squared distance under the prior masses: it depends on the data,
# not on τ, nor on the coupling's cost and its scale. Smaller ε only sees sampling noise: with 183 cells in 30
# dimensions, two halves of one population are as far apart at 0.05 as two time points are (211 against 244), while at
# 0.3 they are a third as far (23 against 76).
VALID_EPSILON = 0.3


def fit(
    method: str | Method,
    coupling: Coupling,
    *,
    n_iters: int,
    batch_size: int = 256,
    rng: jax.Array | int = 0,
    rescaling: str = "global",
    valid: tuple[ArrayLike, ArrayLike] | None = None,
    valid_fraction: float | None = None,
    log_every: int | None = None,
    patience: int | None = None,
    ema_decay: float | None = None,
    source_noise: float = 0.0,
    memory_limit: float | str | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int | None = None,
    progress: bool = True,
) -> tuple[TransportMap, History]:
    """Train a map between the rescaled measures of a coupling.

    Parameters
    ----------
    method
        The estimator, or the name of one with its defaults.
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
    valid
        Source and target cells, ``(n, dim)`` and ``(m, dim)``, that the coupling has not seen. The returned parameters
        are those with the lowest Sinkhorn divergence between the pushed held-out source and the held-out target, both
        weighted by the coupling's potentials. Flows, which are trained by plain regression, keep the last parameters
        unless ``patience`` is given; for them the divergence is a record.
    valid_fraction
        Share of the coupling's own cells of each side held out instead, a tenth by default; 0 validates nothing and
        returns the last parameters.
    log_every
        Steps between records; a twentieth of ``n_iters`` by default. The host waits for the device only then.
    patience
        Stop after this many records without a better one.
    ema_decay
        Average parameters exponentially with this decay (bias-corrected) and use the average; 0 uses the last ones.
        By default what suits the method: none, or for flows 0.999, lower in runs of less than 10,000 steps, such that
        the average is over the last tenth of the run.
    source_noise
        Standard deviation of Gaussian noise added to the source cells of every batch, in units of the root mean
        square spread per dimension. Smooths the map between few cells in many dimensions, at the price of a
        contraction; 0 trains on the cells as they are.
    memory_limit
        Memory that training, and later each call of the map, may take, see :func:`uotcell.ot.solve_unbalanced`; by
        default that of the coupling.
    checkpoint_dir
        Folder for checkpoints. The same call goes on from the last one there, after a kill at any moment, and ends as
        it would have without: bit-equal parameters and records, except for ``steps_per_second``.
    checkpoint_every
        Steps between checkpoints, rounded up to records; at every record by default, and always at the end.
    progress
        Show a progress bar.

    Returns
    -------
    The fitted map and the record of the run. After Ctrl-C, which warns, the best map so far, and a record that says
    ``interrupted``; before the first record there is none, and the ``KeyboardInterrupt`` goes on.

    Raises
    ------
    ValueError
        If an argument is out of range, or ``checkpoint_dir`` holds the checkpoints of another run.
    MemoryError
        If the cells, pools of partners or states of training exceed ``memory_limit``.
    OSError
        If a checkpoint cannot be written, as on a full disk. Those before it remain.
    uotcell.ConvergenceError
        If a loss, a batch's coupling or the parameters are not finite after a step, which the message names, or no
        validation divergence is. Its ``results`` hold the map until then.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 3)) + np.array([0.0, 1.0])[:, None, None]
    >>> coupling = uc.ot.solve_unbalanced(x, y, tau=0.95)
    >>> method = uc.methods.FlowMatching(hidden=(16,))
    >>> transport_map, history = uc.train.fit(method, coupling, n_iters=20, batch_size=32, progress=False)
    >>> transport_map.push(x).shape, history.iteration[-1]
    ((100, 3), 20)
    """
    (fitted,) = fit_many(
        method, [coupling], n_iters=n_iters, batch_size=batch_size, rng=[rng], rescaling=rescaling,
        valid=None if valid is None else [valid], valid_fraction=valid_fraction, log_every=log_every,
        patience=patience, ema_decay=ema_decay, source_noise=source_noise, memory_limit=memory_limit,
        checkpoint_dir=checkpoint_dir, checkpoint_every=checkpoint_every, progress=progress,
    )  # fmt: skip
    return fitted


def fit_many(
    method: str | Method,
    couplings: Sequence[Coupling],
    *,
    n_iters: int,
    batch_size: int = 256,
    rng: Sequence[jax.Array | int] | jax.Array | int = 0,
    rescaling: str = "global",
    valid: Sequence[tuple[ArrayLike, ArrayLike]] | None = None,
    valid_fraction: float | None = None,
    log_every: int | None = None,
    patience: int | None = None,
    ema_decay: float | None = None,
    source_noise: float = 0.0,
    group_size: int | None = None,
    memory_limit: float | str | None = None,
    names: Sequence[str] | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int | None = None,
    progress: bool = True,
) -> list[tuple[TransportMap, History] | None]:
    """Train one map for each of many couplings, as one batched program.

    Cells, parameters and optimiser states of all pairs are stacked, so that the program is compiled once, whatever
    their number. Every pair is trained as :func:`fit` would train it alone with the same seed.

    Parameters
    ----------
    method, n_iters, batch_size, rescaling, valid_fraction, log_every, patience, ema_decay, source_noise
        See :func:`fit`.
    couplings
        The solved pairs, of one dimension; with ``rescaling="minibatch"`` also balanced on the same sides.
    rng
        A key or seed per pair, or one from which theirs are derived by their place in the list.
    valid
        A source and a target of unseen cells per pair, see :func:`fit`.
    group_size
        Pairs that train at once. By default as many as fit into a third of ``memory_limit``.
    memory_limit
        Memory that training, and later each call of a map, may take, see :func:`fit`.
    names
        What to call the pairs in messages; their places by default.
    checkpoint_dir, checkpoint_every, progress
        See :func:`fit`; pairs that train at once share the checkpoints in a subfolder. Those of finished pairs are
        read, and nothing of them is trained again.

    Returns
    -------
    The fitted map and the record of the run, for each pair in order. After Ctrl-C, which warns, the best map so far of
    each, and None for pairs whose turn had not come; before any has a map the ``KeyboardInterrupt`` goes on.

    Raises
    ------
    ValueError
        If an argument is out of range, or ``checkpoint_dir`` holds the checkpoints of another run.
    MemoryError
        If a single pair exceeds ``memory_limit``.
    OSError
        If a checkpoint cannot be written, as on a full disk. Those before it remain.
    uotcell.ConvergenceError
        If a loss, a batch's coupling or the parameters of a pair are not finite after a step, or no validation
        divergence of it is. Raised when all others have trained to the end; names the pair and the step. Its
        ``results`` hold the maps of all pairs, of a broken one that before it broke, and ``failed`` the broken ones.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 3)) + np.array([0.0, 1.0])[:, None, None]
    >>> coupling = uc.ot.solve_unbalanced(x, y, tau=0.95)
    >>> method = uc.methods.FlowMatching(hidden=(16,))
    >>> fits = uc.train.fit_many(method, [coupling, coupling], n_iters=20, batch_size=32, progress=False)
    >>> [transport_map.push(x).shape for transport_map, _ in fits]
    [(100, 3), (100, 3)]
    """
    method, couplings = resolve_method(method), list(couplings)
    _check_pairs(couplings, rescaling, rng, valid, names)
    same_space = couplings[0].same_space
    if not same_space:
        check_crosses_spaces(method)
    if valid is not None and valid_fraction is not None:
        raise ValueError(
            f"Expected one of `valid` and `valid_fraction`, found both (valid_fraction={valid_fraction}). "
            "Cells given as `valid` are held out already."
        )
    valid_fraction = 0.1 if valid_fraction is None else valid_fraction
    _check_arguments(
        n_iters, batch_size, rescaling, valid_fraction, log_every, patience, ema_decay, source_noise, group_size,
        checkpoint_dir, checkpoint_every,
    )  # fmt: skip
    if memory_limit is not None:
        couplings = [replace(coupling, memory_limit=parse_memory(memory_limit)) for coupling in couplings]
    warn_if_gpu_unused()

    n_pairs = len(couplings)
    rngs = rng if isinstance(rng, Sequence) else [jax.random.fold_in(as_key(rng), i) for i in range(n_pairs)]
    with held_back_interrupt():
        pairs, frames = prepare_pairs(
            method, couplings, rngs, rescaling=rescaling, valid=valid, valid_fraction=0.0 if valid else valid_fraction
        )
    settings = Settings(
        method=method,
        batch_size=batch_size,
        chunk=min(log_every or max(1, n_iters // 20), n_iters),
        rescaling=rescaling,
        ema_decay=(method.default_ema_decay if ema_decay is None else ema_decay) or None,
        ema_shrinks=ema_decay is None,
        source_noise=float(source_noise),
        lockstep=on_accelerator(),  # a CPU gains nothing from wide batches
    )
    device = describe_device()
    histories = [History(device=device, valid_epsilon=_valid_epsilon(coupling)) for coupling in couplings]
    names = [f"pair {i}" for i in range(n_pairs)] if names is None else [str(name) for name in names]
    size = min(n_pairs, group_size or _pairs_that_fit(pairs[0], method.draws * batch_size, couplings[0].memory_limit))
    starts = range(0, n_pairs, size)
    title = f"{method.name}{'' if n_pairs == 1 else f' × {n_pairs}'} [{device}]"
    fitted, failures, interrupted = [], [], False
    with tqdm(total=n_iters * len(starts), disable=not progress, unit="step", desc=title) as bar:
        for number, start in enumerate(starts):
            members = slice(start, min(start + size, n_pairs))
            # The last group is filled up with copies of its last pair, so that all groups share one program.
            padded = [pairs[min(i, n_pairs - 1)] for i in range(start, start + size)]
            try:
                with held_back_interrupt() as interrupt:
                    group = Group(
                        settings, n_iters, names[members], stack(padded), histories[members], patience, same_space
                    )
                    with _checkpoints(checkpoint_dir, number, group, checkpoint_every) as checkpoints:
                        end = train_group(group, bar, interrupt, checkpoints)
            except KeyboardInterrupt:
                if not fitted:
                    raise
                interrupted = True
                break
            limits = [coupling.memory_limit for coupling in couplings[members]]
            fitted += _maps(group, end, frames[members], limits)
            failures += end.failures
            interrupted = end.interrupted
            if interrupted:
                break
    fitted += [None] * (n_pairs - len(fitted))
    if interrupted:
        _warn_of_interrupt(names, fitted, n_iters, checkpoint_dir)
    failed = [i for i, failure in enumerate(failures) if failure]
    if failed:
        raise ConvergenceError(describe_failures([failures[i] for i in failed]), results=fitted, failed=failed)
    return fitted


def _maps(
    group: Group, end: Progress, frames: list[Frame], limits: list[int | None]
) -> list[tuple[TransportMap, History] | None]:
    """Return map and history of every pair; None for one that has no record."""
    pairs, best = [], unstack(end.best, len(frames))
    for params, frame, history, limit in zip(best, frames, end.histories, limits, strict=True):
        fitted = TransportMap(
            method=group.settings.method, params=params, same_space=group.same_space, memory_limit=limit,
            **frame._asdict(),
        )  # fmt: skip
        pairs.append((fitted, history) if history.best_iteration else None)
    return pairs


def _checkpoints(
    directory: str | Path | None, number: int, group: Group, every: int | None
) -> AbstractContextManager[Checkpoints | None]:
    if directory is None:
        return nullcontext()
    return Checkpoints(Path(directory) / f"group_{number}", group, every=every or 1)


def _warn_of_interrupt(names: list[str], fitted: list, n_iters: int, checkpoint_dir: str | Path | None) -> None:
    stopped = [(name, pair[1]) for name, pair in zip(names, fitted, strict=True) if pair and pair[1].interrupted]
    missing = [name for name, pair in zip(names, fitted, strict=True) if pair is None]
    parts = ["Training was interrupted."]
    if stopped:
        steps = stopped[0][1].iteration[-1]
        parts.append(f"Stopped after {steps} of {n_iters} steps: {listed([name for name, _ in stopped])}.")
    if missing:
        parts.append(f"Without a map: {listed(missing)}.")
    if checkpoint_dir is None:
        parts.append("Give a `checkpoint_dir` to be able to go on another time.")
    else:
        parts.append(f"Run the same call again to go on from the checkpoints in {checkpoint_dir}.")
    warnings.warn(" ".join(parts), stacklevel=4)


def check_crosses_spaces(method: Method) -> None:
    """Raise unless a method can map between spaces."""
    if not method.crosses_spaces:
        raise ValueError(
            f"Expected a method that maps between spaces, as source and target have different features, found "
            f"{method.name!r}. Use `GENOT`."
        )


def _valid_epsilon(coupling: Coupling) -> float:
    # Between spaces, distances within the target; where all cells coincide, any unit will do.
    x, a = (coupling.x, coupling.a) if coupling.same_space else (coupling.y, coupling.b)
    return VALID_EPSILON * (mean_squared_distance(x, coupling.y, a, coupling.b) or 1.0)


def _pairs_that_fit(pair: Pair, batch_cells: int, memory_limit: int | None) -> int:
    """Pairs whose cells, parameters, optimiser states, batches and validation take up a third of the memory."""
    state, data = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part))
        for part in (pair.state, (pair.run.data, pair.valid))
    )
    # Parameters are held five times (now, average, best, gradient, update), cells once by the pair and once by its
    # group; a loss holds a few square matrices a batch.
    needed = 5 * state + 2 * data + 4 * 8 * batch_cells**2
    if pair.valid is not None:  # three problems, each with its costs and what a sweep makes of them
        needed += 3 * DENSE_BYTES * max(len(pair.valid.x), len(pair.valid.y)) ** 2
    remedy = "Train on fewer cells, or by a smaller network or `batch_size`"
    check_memory(needed, memory_limit, "the cells, parameters and optimiser states of a pair", remedy)
    return max(1, memory_bytes(memory_limit) // 3 // needed)


def _check_pairs(couplings, rescaling: str, rng, valid, names) -> None:
    if not couplings:
        raise ValueError("Expected at least one coupling, found none.")
    dims = {(coupling.x.shape[1], coupling.y.shape[1], coupling.same_space) for coupling in couplings}
    if len(dims) > 1:
        raise ValueError(f"Expected couplings of one dimension, found {sorted({dim for dim, *_ in dims})}.")
    balanced = {tuple(side == 1 for side in coupling.tau) for coupling in couplings}
    if rescaling == "minibatch" and len(balanced) > 1:
        raise ValueError(
            "Expected couplings that are balanced on the same sides with rescaling='minibatch', found tau "
            f"{sorted({coupling.tau for coupling in couplings})}. Fit them one by one."
        )
    for name, value in (("rng", rng if isinstance(rng, Sequence) else None), ("valid", valid), ("names", names)):
        if value is not None and len(value) != len(couplings):
            raise ValueError(f"Expected one entry of `{name}` per coupling, {len(couplings)}, found {len(value)}.")


def _check_arguments(
    n_iters, batch_size, rescaling, valid_fraction, log_every, patience, ema_decay, source_noise, group_size,
    checkpoint_dir, checkpoint_every,
) -> None:  # fmt: skip
    if rescaling not in ("global", "minibatch"):
        raise ValueError(f"Expected `rescaling` to be 'global' or 'minibatch', found {rescaling!r}.")
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"Expected `valid_fraction` to be in [0, 1), found {valid_fraction}.")
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"Expected `ema_decay` to be in [0, 1), found {ema_decay}.")
    if not 0 <= source_noise < np.inf:
        raise ValueError(f"Expected `source_noise` to be a non-negative number, found {source_noise}.")
    counts = {"n_iters": n_iters, "batch_size": batch_size, "log_every": log_every, "patience": patience}
    counts |= {"group_size": group_size, "checkpoint_every": checkpoint_every}
    for name, value in counts.items():
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise ValueError(f"Expected `{name}` to be an integer of at least 1, found {value!r}.")
    if checkpoint_every is not None and checkpoint_dir is None:
        raise ValueError("Expected a `checkpoint_dir` with `checkpoint_every`: there is nowhere to write to.")
    if patience is not None and valid_fraction == 0:
        raise ValueError("Expected `valid_fraction` above 0 with `patience`: there is nothing to be patient about.")
