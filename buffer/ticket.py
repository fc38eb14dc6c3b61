"""Work handed to the background thread, and the wait for its result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Ticket(Generic[Result]):
    """One piece of work. The result can be read once it is done, and never before."""

    def __init__(self, work: Callable[[], Result], after: Future[None] | None = None) -> None:
        """`after`: what must be done first, or None."""
        self._after = after
        self._work = work
        self._unfinished = threading.Lock()
        self._unfinished.acquire()
        self._results: list[Result] = []
        self._cause: BaseException | None = None

    @property
    def ready(self) -> bool:
        """Whether the work can be done now."""
        return self._after is None or self._after.done()

    @property
    def finished(self) -> bool:
        """Whether `result` would return or raise at once."""
        return not self._unfinished.locked()

    def perform(self) -> None:
        """Do the work; for the background thread."""
        self._results.append(self._work())
        self._unfinished.release()

    def fail(self, cause: BaseException | None) -> None:
        """Give the work up because the background thread ended."""
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
