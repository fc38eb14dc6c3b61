"""Log entries that anybody can cause, kept few: the log lies on the run's disk."""

from __future__ import annotations

import logging
import threading
import time

PERIOD_S = 10.0


class Seldom(logging.Filter):
    """Lets entries of one kind pass once in ten seconds; the next one says how many were left out. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._passed: dict[object, tuple[float, int]] = {}
        """When one passed last and how many did not since, by the text without its arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether an entry passes."""
        now_s = time.monotonic()
        with self._lock:
            passed_at_s, left_out = self._passed.get(record.msg, (now_s - PERIOD_S, 0))
            passes = now_s - passed_at_s >= PERIOD_S
            self._passed[record.msg] = (now_s, 0) if passes else (passed_at_s, left_out + 1)
        if passes and left_out:
            record.msg = f"{record.msg} ({left_out} more since the last)"
        return passes
