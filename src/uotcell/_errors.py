"""Errors raised by uotcell."""

from __future__ import annotations


class ConvergenceError(RuntimeError):
    """A numerical solve or a training run did not reach a usable answer.

    The message names the quantity that failed, its value, and what to change.
    """
