"""What every pair brings to a run: training cells, held-out cells, keys and initial parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from uotcell.methods import Method
from uotcell.ot import Coupling
from uotcell.ot._inputs import as_key, as_points, on_device
from uotcell.train._data import BatchProblem, Frame, HeldOut, bucket, held_out, split_rows, training_data
from uotcell.train._program import PairRun

# Most held-out cells per side that validation looks at: keeps it to a small part of a run.
VALID_CELLS = 512
# Folded into a pair's key for its pool of partners; steps fold in their number, which is never negative.
POOL_KEY = 2**32 - 1


class Pair(NamedTuple):
    """One pair, ready to be stacked with others of a call.

    ``valid`` and ``entropic_image``, the held-out sources under the entropic map towards the training targets, are
    ``None`` without held-out cells.
    """

    state: Any
    run: PairRun
    valid: HeldOut | None
    entropic_image: jax.Array | None


def prepare_pairs(
    method: Method,
    couplings: Sequence[Coupling],
    rngs: Sequence[jax.Array | int],
    *,
    rescaling: str,
    valid: Sequence[tuple[ArrayLike, ArrayLike]] | None,
    valid_fraction: float,
) -> tuple[list[Pair], list[Frame]]:
    """Split, weigh and pad the cells of every pair to the sizes of the largest, and draw its initial parameters.

    Returns the pairs, and for each the frame that leads from training to the original coordinates.
    """
    keys = [jax.random.split(as_key(rng), 4) for rng in rngs]
    splits = [
        [
            split_rows(key, len(side), valid_fraction)
            for key, side in zip(rng[:2], (coupling.x, coupling.y), strict=True)
        ]
        for rng, coupling in zip(keys, couplings, strict=True)
    ]
    for coupling, split in zip(couplings, splits, strict=True):
        _check_split(coupling, split, valid_fraction)
    if valid is not None:
        cells = [_unseen(coupling, sides) for coupling, sides in zip(couplings, valid, strict=True)]
    elif valid_fraction:
        cells = [_own(c, [held for _, held in split]) for c, split in zip(couplings, splits, strict=True)]
    else:
        cells = None
    sizes = _buckets([[len(rows) for rows, _ in split] for split in splits])
    valid_sizes = None if cells is None else _buckets([[len(side) for side in points] for points, _ in cells])

    pairs, frames = [], []
    for i, (coupling, split) in enumerate(zip(couplings, splits, strict=True)):
        rows, columns = (kept for kept, _ in split)
        data, summary, frame = training_data(
            coupling, rows, columns, rescaling=rescaling, samples=method.samples, sizes=sizes,
            # Not one of the four keys, whose number decides what each of them is.
            rng=jax.random.fold_in(keys[i][3], POOL_KEY),
        )  # fmt: skip
        state = method.init(keys[i][2], coupling.x.shape[1], summary)
        frames.append(frame)
        held, image = None, None
        if cells is not None:
            held = held_out(*cells[i], data, valid_sizes)
            pushed = coupling.push(np.asarray(held.x) * frame.scale + frame.shift, columns=columns)
            image = on_device(frame.target(pushed))
        problem = BatchProblem.of(coupling) if rescaling == "minibatch" else None
        pairs.append(Pair(state, PairRun(keys[i][3], data, problem), held, image))
    return pairs, frames


@jax.jit
def stack(pairs: Sequence[Pair]) -> Pair:
    """Stack all arrays of pairs along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)


def _own(coupling: Coupling, rows: Sequence[np.ndarray]) -> tuple[list, list]:
    """Held-out cells of the coupling, and the weights they have there."""
    rows = [_thinned(side) for side in rows]
    points = [np.asarray(side)[r] for side, r in zip((coupling.x, coupling.y), rows, strict=True)]
    sides = (coupling.source_weights, coupling.target_weights)
    return points, [np.asarray(side)[r] for side, r in zip(sides, rows, strict=True)]


def _unseen(coupling: Coupling, sides: tuple[ArrayLike, ArrayLike]) -> tuple[list, list]:
    """Cells the coupling has not seen, and the weights its potentials give them."""
    dims = (coupling.x.shape[1], coupling.y.shape[1])
    x, y = (_thinned(as_points(s, f"valid {name}", dim=d)) for s, name, d in zip(sides, "xy", dims, strict=True))
    if not (len(x) and len(y)):
        raise ValueError(f"Expected `valid` to hold cells of both sides of every pair, found {len(x)} and {len(y)}.")
    return [x - coupling.shift, y - coupling.target_shift], [coupling.source_rescaling(x), coupling.target_rescaling(y)]


def _thinned(cells: np.ndarray) -> np.ndarray:
    # Cells may be sorted by type: thin them evenly instead of taking the first ones.
    return cells[:: max(1, -(-len(cells) // VALID_CELLS))]


def _buckets(counts: list[list[int]]) -> tuple[int, int]:
    return tuple(bucket(max(side)) for side in zip(*counts, strict=True))


def _check_split(coupling: Coupling, split, valid_fraction: float) -> None:
    (rows, valid_rows), (columns, valid_columns) = split
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
