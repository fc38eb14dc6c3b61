"""Work on the rows of images, divided over threads that each own some of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

log = logging.getLogger(__name__)

AHEAD_MAX = 4
"""How much given work a thread may have before it that is not done, before the one that gives waits."""
ROWS_OF_ALL = 64
"""About as many rows as a small patch has: if all threads together own no more, each has a part of every patch."""
STRIP_MIN_PX = 16
"""A strip costs the row above it once more."""
THREAD_NAME = "stitching"


class Strips(NamedTuple):
    """Rows of images that one thread owns: strips of `height_px` rows, one in `owners`, from the one at `owner` on."""

    height_px: int
    owner: int
    owners: int


Work: TypeAlias = Callable[[Strips], None]

ALL_ROWS = Strips(1 << 40, 0, 1)


class RowOwners:
    """Threads that own the rows of images in turns, so that none waits for another. Use it from one thread at a time.

    What is given is done later, by each thread in the order in which it was given. A single thread is the one that
    gives: it does the work itself, at once.

    Args:
        threads: how many.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._undone = 0
        self._done = SimpleQueue[Exception | None]()
        height_px = max(ROWS_OF_ALL // threads, STRIP_MIN_PX)
        self._owners: list[tuple[SimpleQueue[Work | None], threading.Thread]] = []
        for owner in range(threads if threads > 1 else 0):
            given = SimpleQueue[Work | None]()
            arguments = Strips(height_px, owner, threads), given, self._done
            thread = threading.Thread(target=_do_all, args=arguments, name=f"{THREAD_NAME}-{owner}", daemon=True)
            thread.start()
            self._owners.append((given, thread))

    def give(self, work: Work) -> None:
        """Have `work` done on all rows. Blocks while much of what was given before is not done, and raises its errors.

        Args:
            work: does the rows that its thread owns, while what was given before may still be done to the others.
                Should not need the interpreter's lock.
        """
        if not self._owners:
            work(ALL_ROWS)
            return
        self._wait(undone_max=(AHEAD_MAX - 1) * self.threads)
        for given, _ in self._owners:
            given.put(work)
        self._undone += self.threads

    def settle(self) -> None:
        """Wait until everything that was given is done; raises its errors."""
        self._wait(undone_max=0)

    def close(self) -> None:
        """Wait for what was given, and end the threads."""
        for given, _ in self._owners:
            given.put(None)
        for _, thread in self._owners:
            thread.join()

    def _wait(self, *, undone_max: int) -> None:
        while self._undone > undone_max:
            error = self._done.get()
            self._undone -= 1
            if error is not None:
                raise error


def _do_all(owned: Strips, given: SimpleQueue[Work | None], done: SimpleQueue[Exception | None]) -> None:
    while (work := given.get()) is not None:
        try:
            work(owned)
        except Exception as error:  # noqa: BLE001 - the thread that gives raises it
            done.put(error)
        else:
            done.put(None)


ONE_OWNER = RowOwners()
"""All rows at once, by the thread that asks."""


def choose_threads(*, processors: int, computing: int, at_most: int) -> int:
    """Return how many threads may stitch, and log it.

    Args:
        processors: that this process may use.
        computing: those of them that the network keeps busy.
        at_most: what the configuration allows.
    """
    threads = max(1, min(processors - computing, at_most))
    log.info(
        "stitching with %d threads: %d processors, %d of them for the network; edge.stitching_threads_max is %d",
        threads,
        processors,
        computing,
        at_most,
    )
    return threads
