"""Processes that Ctrl-C does not reach: whoever has started them ends them in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted_start() -> Iterator[None]:
    """Let processes that are started in the context not hear SIGINT: they inherit that this thread blocks it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
