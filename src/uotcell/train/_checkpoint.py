"""Checkpoints of a training run: written whole or not at all, and read only by the run they belong to."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from uotcell.ot._inputs import on_device
from uotcell.train._failure import Failure
from uotcell.train._history import History

if TYPE_CHECKING:
    from uotcell.train._loop import Group, Progress

# The last one, and the one before in case it cannot be read. Each holds the best parameters as well as the last.
KEPT = 2
# How orbax marks what is not complete.
PARTIAL = "*.orbax-checkpoint-tmp*"


class Checkpoints:
    """Checkpoints of one group of pairs, a folder for each step.

    Parameters
    ----------
    directory
        Their folder, of this group alone.
    group
        What they are of.
    every
        Least number of steps between two of them.
    """

    def __init__(self, directory: Path, group: Group, *, every: int):
        import orbax.checkpoint as ocp  # half a second that runs without checkpoints do not spend

        self.directory, self.every, self.saved = directory.resolve(), every, 0
        self.fingerprint = fingerprint(group)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
                lightweight_initialize=True,
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception) -> None:
        self._manager.close()

    def read(self, start: Progress) -> Progress:
        """Return where the run stood at the last checkpoint that can be read; ``start`` if there is none.

        Raises
        ------
        ValueError
            If the checkpoints are of another run, or none of them can be read.
        """
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                record, arrays = self._load(step)
            except Exception as error:  # orbax and tensorstore raise what they like
                warnings.warn(f"The checkpoint of step {step} in {self.directory} is damaged ({error}).", stacklevel=6)
                damaged.append(step)
                continue
            self._check_same_run(record["fingerprint"])
            for later in damaged:
                self._manager.delete(later)
            self.saved = step
            return _progress(start, record, arrays)
        if damaged:
            raise ValueError(
                f"Expected a checkpoint in {self.directory} that can be read, found only damaged ones. Remove the "
                "folder to start anew."
            )
        return start

    def save_if_due(self, progress: Progress, *, last: bool) -> None:
        """Write a checkpoint if enough steps were taken since, or no more will be."""
        if last or progress.done - self.saved >= self.every:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint; those before it stay until it is complete.

        Raises
        ------
        OSError
            If it cannot be written, as on a full disk.
        """
        if progress.done == self.saved:
            return
        arrays = _arrays(progress)
        try:
            self._write(progress, arrays)
        except Exception as error:  # orbax and tensorstore raise what they like
            for partial in self.directory.glob(PARTIAL):
                shutil.rmtree(partial, ignore_errors=True)
            needed, free = sum(array.nbytes for array in arrays.values()), shutil.disk_usage(self.directory).free
            before = f"That of step {self.saved} is intact" if self.saved else "There is none before it"
            raise OSError(
                f"Could not write the checkpoint of step {progress.done} into {self.directory}, which takes about "
                f"{needed / 1e6:.1f} MB, while {free / 1e6:.1f} MB are free: {error}. {before}: make room, and run the "
                "same call again to go on."
            ) from error
        self.saved = progress.done

    def _write(self, progress: Progress, arrays: dict[str, np.ndarray]) -> None:
        record = {
            "fingerprint": self.fingerprint,
            "sha256": _digest(arrays),
            "done": progress.done,
            **{name: getattr(progress, name).tolist() for name in ("best_divergence", "waited", "running")},
            "histories": [vars(history) for history in progress.histories],
            "failures": progress.failures,
        }
        args = self._ocp.args
        parts = args.Composite(arrays=args.StandardSave(arrays), record=args.JsonSave(record))
        self._manager.save(progress.done, args=parts)

    def _load(self, step: int) -> tuple[dict, dict]:
        args = self._ocp.args
        parts = args.Composite(arrays=args.StandardRestore(), record=args.JsonRestore())
        found = self._manager.restore(step, args=parts)
        if _digest(found.arrays) != found.record["sha256"]:
            raise ValueError("its arrays are not those that were written")
        return found.record, found.arrays

    def _check_same_run(self, found: dict) -> None:
        there, here = _flat(found), _flat(self.fingerprint)
        differing = [
            f"{name} is {there.get(name, 'missing')!r} there and {here.get(name, 'missing')!r} here"
            for name in sorted({*there, *here})
            if there.get(name) != here.get(name)
        ]
        if differing:
            raise ValueError(
                f"Expected checkpoints of this run in {self.directory}, found those of another: "
                f"{'; '.join(differing)}. Choose another `checkpoint_dir`, or remove this one to start anew."
            )


def fingerprint(group: Group) -> dict:
    """Return what makes a run the same: settings, keys, cells and their weights by hash, versions, device.

    Options of a method that are no plain values are known by their type alone.
    """
    settings, pairs = group.settings, group.pairs
    of_run = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name != "method"}
    method = {f.name: getattr(settings.method, f.name) for f in fields(settings.method)}
    found = {
        **of_run,
        "n_iters": group.n_iters,
        "patience": group.patience,
        "pairs": group.names,
        "method": {"class": type(settings.method).__name__, **method},
        "versions": {name: version(name) for name in ("uotcell", "jax")},
        "device": group.histories[0].device,
        "hash": {
            "of the random keys": _digest(pairs.run.rng),
            "of the training cells and their weights": _digest((pairs.run.data, pairs.run.problem)),
            "of the held-out cells": _digest(pairs.valid),
            "of the initial parameters": _digest(pairs.state),
        },
    }
    return json.loads(json.dumps(found, default=_plain))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else type(value).__name__


def _flat(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name} ") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _arrays(progress: Progress) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves((progress.carry, progress.best))
    return {f"{i:05d}": _on_host(leaf) for i, leaf in enumerate(leaves)}


def _progress(start: Progress, record: dict, arrays: dict[str, np.ndarray]) -> Progress:
    """Put what was read into the places it has at the start."""
    leaves, structure = jax.tree.flatten((start.carry, start.best))
    carry, best = jax.tree.unflatten(structure, [_on_device(arrays[f"{i:05d}"], leaf) for i, leaf in enumerate(leaves)])
    return start._replace(
        done=record["done"],
        carry=carry,
        best=best,
        **{name: np.asarray(record[name]) for name in ("best_divergence", "waited", "running")},
        histories=[History(**history) for history in record["histories"]],
        failures=[None if failure is None else Failure(*failure) for failure in record["failures"]],
    )


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _on_device(array: np.ndarray, like: Any) -> jax.Array:
    if _is_key(like):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
    return on_device(array, array.dtype)


def _digest(tree: Any) -> str:
    """Hash of all arrays of a tree, their types and shapes."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = _on_host(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
