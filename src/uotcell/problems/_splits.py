"""Cells divided into training, validation and test, each stratum by itself."""

from __future__ import annotations

from zlib import crc32

import jax
import numpy as np

from uotcell.ot._inputs import as_key

SPLITS = ("train", "valid", "test")


def check_fractions(valid_fraction: float, test_fraction: float) -> None:
    """Raise unless the fractions leave something to train on."""
    for name, fraction in (("valid_fraction", valid_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ValueError(f"Expected `{name}` to be in [0, 1), found {fraction!r}.")
    if valid_fraction + test_fraction >= 1:
        raise ValueError(
            f"Expected `valid_fraction` and `test_fraction` to leave cells to train on, found {valid_fraction} and "
            f"{test_fraction}. Lower one of them."
        )


def split_stratum(
    label: str, n: int, *, valid_fraction: float, test_fraction: float, rng: jax.Array | int
) -> np.ndarray:
    """Split the cells of one stratum at random.

    Depends on the seed, the label and the number of cells only: strata that come or go change no other.

    Parameters
    ----------
    label
        Name of the stratum.
    n
        Its number of cells.
    valid_fraction, test_fraction
        Shares of them, rounded; one cell at least where the fraction is not zero.
    rng
        Key or seed.

    Returns
    -------
    Index into ``SPLITS`` of every cell, shape ``(n,)``, int8.
    """
    n_test, n_valid = (max(1, round(f * n)) if f else 0 for f in (test_fraction, valid_fraction))
    order = np.random.default_rng([*seed_words(rng), stable_hash(label)]).permutation(n)
    split = np.full(n, SPLITS.index("train"), np.int8)
    split[order[:n_test]] = SPLITS.index("test")
    split[order[n_test : n_test + n_valid]] = SPLITS.index("valid")
    return split


def seed_words(rng: jax.Array | int) -> list[int]:
    """Return the numbers that make up a key."""
    return np.ravel(jax.random.key_data(as_key(rng))).tolist()


def stable_hash(label: str) -> int:
    """Return a number that depends on the label only, on every machine and in every session."""
    return crc32(label.encode())
