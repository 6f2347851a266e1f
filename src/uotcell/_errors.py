"""Errors raised by uotcell."""

from __future__ import annotations

from collections.abc import Sequence


class ConvergenceError(RuntimeError):
    """A numerical solve or a training run did not reach a usable answer.

    The message names the quantity that failed, its value, and what to change.

    Attributes
    ----------
    results
        After a training run, what :func:`uotcell.train.fit_many` would have returned: the map and the history of every
        pair in order, of a broken pair those before it broke. None for a pair without a map. Empty for other failures.
    failed
        Places of the broken pairs in ``results``.
    """

    def __init__(self, message: str, *, results: Sequence[tuple | None] = (), failed: Sequence[int] = ()):
        super().__init__(message)
        self.results, self.failed = list(results), list(failed)
