"""Work handed to the background thread, and the wait for its result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Work(Generic[Result]):
    """What the background thread was asked to do, once `after` is done; can be waited for.

    Every draw makes one, so it is a bare lock: a `Future` of the standard library makes a draw several µs dearer.
    """

    def __init__(self, action: Callable[[], Result], after: Future[None] | None) -> None:
        self._action = action
        self._after = after
        self._results: list[Result] = []
        self._cause: BaseException | None = None
        self._unfinished = threading.Lock()
        self._unfinished.acquire()

    @property
    def is_ready(self) -> bool:
        """Whether it can be done now."""
        return self._after is None or self._after.done()

    @property
    def is_finished(self) -> bool:
        """Whether `result` does not have to wait."""
        return not self._unfinished.locked()

    def perform(self) -> None:
        """Do it; for the background thread."""
        self._results.append(self._action())
        self._unfinished.release()

    def give_up(self, cause: BaseException | None) -> None:
        """Let `result` fail, because the background thread has ended."""
        self._cause = cause
        self._unfinished.release()

    def result(self) -> Result:
        """Wait for the result; RuntimeError if the background thread ended before."""
        with self._unfinished:
            pass
        if not self._results:
            reason = f" by {type(self._cause).__name__}: {self._cause}" if self._cause else ""
            raise RuntimeError(f"The buffer's background thread was ended{reason}.") from self._cause
        return self._results[0]
