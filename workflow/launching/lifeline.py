"""How a part notices that nobody is left who would end it: neither the launcher nor its watchdog.

Both hold the writing end of a pipe whose reading end is the part's standard input, also that of ranks under torchrun.
It ends with the last of the two, however they end.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

VARIABLE = "PTYCHOFLOW_LIFELINE"
"""Tells a part that its standard input is one; who starts a part by hand may have any."""


class Lifeline:
    """The launcher's side: what parts have as standard input, and what the watchdog keeps open too."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let go of it."""
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that a part needs."""
        return {VARIABLE: "1"}

    def close(self) -> None:
        """Let go of it."""
        os.close(self.read_end)
        os.close(self.write_end)


@contextmanager
def stop_without_launcher(stop: threading.Event, *, grace_s: float) -> Iterator[bool]:
    """Within the context, set `stop` once launcher and watchdog are gone, and end this process if that does not help.

    Does nothing in a process that the launcher has not started; yields whether it has.
    """
    if os.environ.pop(VARIABLE, "") != "1":
        yield False
        return
    ended = threading.Event()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            continue
        if ended.is_set():
            return
        log.warning("launcher and watchdog are gone: ending")
        stop.set()
        if not ended.wait(grace_s):
            log.error("still there after %.0f s: ending at once", grace_s)
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
    try:
        yield True
    finally:
        ended.set()
