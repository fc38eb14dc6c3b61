"""Work on the rows of an image, divided over threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

BAND_MIN_PX = 1 << 17
"""Pixels that a thread is woken for at least; they take it about 0.1 ms, several times as long as waking it."""


class RowBands:
    """Threads that share the rows of an image; the one that asks is one of them. Use it from one thread at a time.

    Args:
        threads: how many at most.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="stitching") if threads > 1 else None

    def run(
        self,
        work: Callable[[tuple[int, int]], None],
        rows: tuple[int, int],
        *,
        pixels: int,
        by_row: Callable[[], npt.NDArray[np.int64]],
    ) -> None:
        """Have `work` done on all rows, each by one thread; blocks.

        Args:
            work: does a band: its first row, and the first one behind it. Should not need the interpreter's lock.
            rows: all of them, likewise.
            pixels: about how many there are to do.
            by_row: tells how many of them on each row; bands have about equally many.
        """
        bands = min(self.threads, pixels // BAND_MIN_PX)
        if self._pool is None or bands <= 1:
            work(rows)
            return
        done_before = np.cumsum(by_row())
        shares = done_before[-1] * np.arange(1, bands) / bands
        bounds = [rows[0], *(rows[0] + np.searchsorted(done_before, shares)).tolist(), rows[1]]
        others = [self._pool.submit(work, band) for band in pairwise(bounds[1:])]
        work((bounds[0], bounds[1]))
        for other in others:
            other.result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


ONE_BAND = RowBands()
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
