"""Counts and rates of an edge, and when they are due to be told."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Hashable

import numpy as np

from ptychoflow.streaming.events import EdgeCounts

RECENT_BATCHES = 4096
RATE_WINDOW_BATCHES = 256
RATE_MIN_SPAN_S = 0.5
"""Batches that were imaged in one go say nothing about a rate."""


class EdgeCounter:
    """Counts frames and keeps the times of recent batches."""

    def __init__(self) -> None:
        self.inferred = 0
        self.refreshed = 0
        self.duplicates = 0
        self.refused = 0
        self.unstitched = 0
        self.put_off = 0
        self.waiting = 0
        self._latencies: deque[tuple[float, int]] = deque(maxlen=RECENT_BATCHES)
        self._done: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW_BATCHES)

    def count_imaged(self, frames: int, *, latency_s: float, now_s: float, in_turn: bool = True) -> None:
        """Count frames imaged for the first time at `now_s` on the monotonic clock, `latency_s` after they came."""
        self.inferred += frames
        if in_turn:
            self._latencies.append((latency_s, frames))
        self._done.append((now_s, frames))

    def totals(self) -> tuple[int, ...]:
        """Return all counts."""
        return (
            self.inferred,
            self.refreshed,
            self.duplicates,
            self.refused,
            self.unstitched,
            self.put_off,
            self.waiting,
        )

    def event(self, *, final: bool = False) -> EdgeCounts:
        """Return the counts, the rate over the last 256 batches, and latencies over the last 4096 imaged in turn.

        Before the first one of these, latencies are NaN: an edge that is started again may count frames of before.
        """
        p50_ms, p99_ms = self._latency_percentiles_ms()
        return EdgeCounts(
            inferred=self.inferred,
            refreshed=self.refreshed,
            duplicates=self.duplicates,
            frames_per_s=self._frames_per_s(),
            frame_to_image_p50_ms=p50_ms,
            frame_to_image_p99_ms=p99_ms,
            refused=self.refused,
            unstitched=self.unstitched,
            put_off=self.put_off,
            waiting=self.waiting,
            final=final,
        )

    def _frames_per_s(self) -> float:
        if not self._done or self._done[-1][0] - self._done[0][0] < RATE_MIN_SPAN_S:
            return 0.0
        frames = sum(count for _, count in self._done) - self._done[0][1]
        return frames / (self._done[-1][0] - self._done[0][0])

    def _latency_percentiles_ms(self) -> tuple[float, float]:
        if not self._latencies:
            return math.nan, math.nan
        seconds, frames = zip(*self._latencies, strict=True)
        p50_s, p99_s = np.percentile(np.repeat(seconds, frames), (50, 99))
        return float(p50_s) * 1000, float(p99_s) * 1000


class Cadence:
    """Says when something that changes is due to be reported: changed since the last time, and not too soon after."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._reported: dict[Hashable, tuple[float, Hashable]] = {}

    def due(self, key: Hashable, state: Hashable, *, at_once: bool = False) -> bool:
        """Return whether `state` of `key` should be reported now, and take it as reported if so."""
        last_s, last_state = self._reported.get(key, (-float("inf"), None))
        now_s = time.monotonic()
        if state == last_state or (now_s - last_s < self._period_s and not at_once):
            return False
        self._reported[key] = now_s, state
        return True
