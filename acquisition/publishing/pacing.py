"""Keeps a frame rate without drifting."""

from __future__ import annotations

import time


class Pacer:
    """Says when the next frames are due.

    Args:
        rate_hz: frames per second; None is never behind.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._period_s = 0.0 if rate_hz is None else 1.0 / rate_hz
        self._due_s = time.monotonic()

    def wait_s(self, frames: int) -> float:
        """Return the seconds until `frames` more frames have been acquired, counted from the last call.

        After a stall the lost time is not made up: a detector does not run faster than its rate.
        """
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - self._period_s) + frames * self._period_s
        return max(0.0, self._due_s - now_s)
