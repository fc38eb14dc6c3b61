"""Threads whose failure is noticed."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class WatchedThread(ABC):
    """A thread that tells those who ask whether it has failed.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self.failure: BaseException | None = None
        """What ended it before its time."""
        self._thread = threading.Thread(target=self._guard, name=name, daemon=True)

    def check(self) -> None:
        """Raise if the thread has ended before its time."""
        if not self._thread.is_alive():
            raise RuntimeError(f"{self._thread.name} ended unexpectedly") from self.failure

    def _guard(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failure = error
            raise

    @abstractmethod
    def _run(self) -> None: ...
