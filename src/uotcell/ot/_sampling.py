"""Drawing cells in proportion to their mass: constant time per draw, whatever the number of cells."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uotcell.ot._inputs import on_device


class AliasTable(NamedTuple):
    """Walker's alias table: two look-ups per draw, exact weights, rows of zero weight never drawn.

    Draws depend on the first ``n_rows`` entries alone, so that padding changes none of them.
    """

    accept: jax.Array
    alias: jax.Array
    n_rows: jax.Array


def alias_table(weights: np.ndarray, *, size: int | None = None) -> AliasTable:
    """Build the table of a discrete measure (Vose 1991).

    Parameters
    ----------
    weights
        Non-negative masses, shape ``(n,)``; they need not sum to one.
    size
        Length of the table, at least ``n``; the rows added are never reached. Equal sizes share compiled programs.

    Returns
    -------
    Table of length ``size``.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or all are zero.
    """
    mass = np.asarray(weights, dtype=np.float64)
    total = mass.sum()
    if not np.isfinite(total) or total <= 0 or mass.min() < 0:
        raise ValueError(
            f"Expected `weights` to be non-negative, finite and not all zero, found sum {total:.3g} and "
            f"minimum {mass.min():.3g}."
        )
    share = (mass * (len(mass) / total)).tolist()
    accept, alias = [1.0] * len(share), list(range(len(share)))
    small = [i for i, s in enumerate(share) if s < 1.0]
    large = [i for i, s in enumerate(share) if s >= 1.0]
    while small and large:
        low, high = small.pop(), large[-1]
        accept[low], alias[low] = share[low], high
        share[high] -= 1.0 - share[low]
        if share[high] < 1.0:
            small.append(large.pop())
    # Rounding can leave rows in `small`; those without any mass must still never be drawn.
    heaviest = int(mass.argmax())
    for i in small:
        if mass[i] == 0.0:
            accept[i], alias[i] = 0.0, heaviest
    padding = 0 if size is None else size - len(mass)
    return AliasTable(
        on_device(np.pad(accept, (0, padding))),
        on_device(np.pad(alias, (0, padding)), np.int32),
        on_device(len(mass), np.int32),
    )


@partial(jax.jit, static_argnames=("shape",))
def draw(rng: jax.Array, table: AliasTable, shape: tuple[int, ...]) -> jax.Array:
    """Draw row numbers of the given shape, independently and with replacement."""
    rng_row, rng_accept = jax.random.split(rng)
    row = jax.random.randint(rng_row, shape, 0, table.n_rows)
    keep = jax.random.uniform(rng_accept, shape) < table.accept[row]
    return jnp.where(keep, row, table.alias[row])


def partners(offsets: jax.Array, log_weights: jax.Array, size: int) -> jax.Array:
    """Draw ``size`` columns per row with probability ∝ ``exp(log_weights)``, at even steps of the row's mass.

    With one random offset per row every column is drawn as often as its share of the row says, to within one draw:
    a pool so drawn stands for its row much better than independent draws would.

    Parameters
    ----------
    offsets
        A uniform draw per row, shape ``(k, 1)``.
    log_weights
        Logarithms of the row's weights, shape ``(k, m)``.
    size
        Columns per row.

    Returns
    -------
    Ascending column numbers, shape ``(k, size)``, int32.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights, axis=1), axis=1)
    steps = (jnp.arange(size) + offsets) / size
    # float32 sums end near, not at, one: scale the steps by what the row really sums to.
    found = jax.vmap(partial(jnp.searchsorted, side="right"))(cumulative, steps * cumulative[:, -1:])
    return jnp.minimum(found, _last_with_mass(cumulative)).astype(jnp.int32)


def draw_columns(offsets: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Draw one column per row with probability ∝ ``exp(log_weights)``, by inverting the row's cumulative sum.

    ``offsets`` are uniform draws, one per row, shape ``(k, 1)``: made for all rows together, so that the blocks in
    which rows are taken change no draw.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights, axis=1), axis=1)
    # float32 sums end near, not at, one: scale the uniform draw by what the row really sums to.
    threshold = offsets * cumulative[:, -1:]
    return jnp.minimum((cumulative <= threshold).sum(axis=1), _last_with_mass(cumulative)[:, 0])


def _last_with_mass(cumulative: jax.Array) -> jax.Array:
    """Last column of every row that adds to its sum; a threshold that rounds up to the sum must not pass it."""
    return (cumulative < cumulative[:, -1:]).sum(axis=1, keepdims=True)


def choose(rng: jax.Array, candidates: np.ndarray, n: int) -> np.ndarray:
    """Return at most ``n`` of the candidates, without replacement, in ascending order."""
    if n >= len(candidates):
        return candidates
    return np.sort(candidates[np.asarray(jax.random.permutation(rng, len(candidates)))[:n]])
