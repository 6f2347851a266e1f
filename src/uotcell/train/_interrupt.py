"""Ctrl-C that waits for a moment at which it can be answered."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

# Seconds between looks at whether the device is done.
POLL = 1e-3


class Interrupt:
    """Whether Ctrl-C was pressed."""

    asked = False

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if it was."""
        if self.asked:
            raise KeyboardInterrupt

    def wait_for(self, array: jax.Array) -> None:
        """Wait until the device has computed an array, or raise ``KeyboardInterrupt``."""
        self.check()
        while not array.is_ready():
            time.sleep(POLL)
            self.check()


@contextmanager
def held_back_interrupt() -> Iterator[Interrupt]:
    """Note Ctrl-C instead of raising it at any place, such as in a callback, where Python ignores what is raised.

    It is raised in the end unless it was answered, a second one at once. Only the main thread is ever interrupted, and
    handlers of others are left alone.
    """
    interrupt = Interrupt()

    def handler(signum, frame) -> None:
        interrupt.check()
        interrupt.asked = True

    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = default and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, handler)
    try:
        yield interrupt
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt.check()
