"""A Python child process that is spoken to in lines over its standard input and output."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from ptychoflow.streaming.signal_name import signal_name
from ptychoflow.streaming.uninterrupted_start import uninterrupted_start
from ptychoflow.streaming.waiting_threads import waiting_threads

CLOSE_TIMEOUT_S = 5.0


class ChildEnded(Exception):
    """The child is gone; the text says how it ended."""


class Child:
    """Runs `python -m module arguments` and exchanges lines with it. Its standard error is this process's.

    A child that reads its standard input to the end and then exits does not outlive this process.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to this process's own."""
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        with uninterrupted_start():  # Ctrl-C is for us
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | limits | waiting_threads(os.environ) | dict(environment or {}),
            )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=module, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, line: bytes) -> None:
        """Send one line. Sending to a child that has ended does nothing: `receive` tells."""
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next line, or None when none came within `timeout_s`.

        Raises:
            ChildEnded: the child is gone and everything it said has been received.
        """
        try:
            line = self._lines.get(timeout=timeout_s) if timeout_s > 0 else self._lines.get_nowait()
        except queue.Empty:
            return None
        if line is None:
            raise ChildEnded(_how_it_ended(self._process.wait()))
        return line

    def close(self) -> None:
        """Close the child's standard input and wait until it has ended; kill it if it does not soon."""
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"it was ended by {signal_name(-status)}"
    return f"it ended with status {status}; see the log"
