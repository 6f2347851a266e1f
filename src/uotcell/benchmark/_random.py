"""Random streams named by what they are for, the same in every process and for every order of tasks."""

from __future__ import annotations

import hashlib

import jax
import numpy as np


def numpy_stream(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of a seed and a purpose."""
    return np.random.default_rng(_words(seed, names))


def jax_stream(seed: int, *names: str) -> jax.Array:
    """Return the jax key of a seed and a purpose."""
    return jax.random.key(_words(seed, names)[0])


def _words(seed: int, names: tuple[str, ...]) -> list[int]:
    # Python's own hash differs between processes.
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return np.frombuffer(digest, "<u4").tolist()
