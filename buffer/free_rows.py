"""The rows of the store that no live item occupies, handed to the thread that offers."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class FreeRows:
    """Rows that may be written. A row is free, or being written by one offer, or live: never two of them."""

    def __init__(self, rows: Iterable[int]) -> None:
        self._free = list(rows)
        self._changed = threading.Condition()
        self._closed = False

    def reserve(self, count: int) -> list[int]:
        """Take `count` rows; blocks while the background has not given back enough. RuntimeError once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._free) >= count)
            if self._closed:
                raise RuntimeError("The buffer's background thread has ended: nothing can be offered any more.")
            taken = self._free[len(self._free) - count :]
            del self._free[len(self._free) - count :]
            return taken

    def release(self, rows: Iterable[int]) -> None:
        """Give rows back."""
        with self._changed:
            self._free.extend(rows)
            self._changed.notify_all()

    def close(self) -> None:
        """Let those who wait fail instead."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
