"""Samples that have arrived and wait to be trained on, in the order of the stream."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import PerspectiveEnd, ScanEnd
from ptychoflow.trainer.interface.pipeline import Minibatch

Marker = PerspectiveEnd | ScanEnd


@dataclass
class _Section:
    """Samples up to the next marker; `marker` is None until that has arrived."""

    chunks: deque[Arrays] = field(default_factory=deque)
    waiting: int = 0
    marker: Marker | None = None

    def append(self, chunk: Arrays) -> None:
        self.chunks.append(chunk)
        self.waiting += _length(chunk)

    def take(self, count: int) -> list[Arrays]:
        parts: list[Arrays] = []
        self.waiting -= count
        while count > 0:
            chunk = self.chunks.popleft()
            if _length(chunk) > count:
                self.chunks.appendleft({name: array[count:] for name, array in chunk.items()})
                chunk = {name: array[:count] for name, array in chunk.items()}
            parts.append(chunk)
            count -= _length(chunk)
        return parts


class SampleQueue:
    """A first-in first-out queue of samples, divided by the ends of perspectives and of the scan. Thread-safe.

    A marker stays at the front until `pass_marker`, so no minibatch mixes perspectives and none of a perspective's
    samples is left behind.

    Args:
        limit: `is_full` once this many samples wait.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._sections = deque([_Section()])
        self._waiting = 0
        self._changed = threading.Condition()

    def put(self, entry: Arrays | Marker) -> None:
        """Append samples (arrays of equal length) or a marker; returns at once, full or not."""
        with self._changed:
            if isinstance(entry, Marker):
                self._sections[-1].marker = entry
                self._sections.append(_Section())
            else:
                self._sections[-1].append(entry)
                self._waiting += _length(entry)
            self._changed.notify_all()

    @property
    def is_full(self) -> bool:
        """Whether the sender should be slowed down."""
        return self._waiting >= self._limit

    def first(self) -> Arrays | None:
        """Return the samples at the front without removing them, or None if none are there."""
        with self._changed:
            chunks = self._sections[0].chunks
            return chunks[0] if chunks else None

    def wait_for_room(self, timeout_s: float) -> bool:
        """Block until the queue is not full; False if it still is after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.is_full, timeout_s)

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return `size` samples, or fewer only if they are the last before a marker.

        Blocks up to `timeout_s`; None if too few have arrived by then, or if a marker is at the front.
        """
        with self._changed:
            front = self._sections[0]
            ready = self._changed.wait_for(lambda: front.waiting >= size or front.marker is not None, timeout_s)
            if not ready or front.waiting == 0:
                return None
            count = min(size, front.waiting)
            parts = front.take(count)
            self._waiting -= count
            self._changed.notify_all()
        return {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}

    @property
    def marker(self) -> Marker | None:
        """The marker at the front, or None while samples come before it or nothing waits."""
        with self._changed:
            front = self._sections[0]
            return front.marker if front.waiting == 0 else None

    def pass_marker(self) -> None:
        """Remove the marker at the front."""
        with self._changed:
            if self._sections[0].marker is None or self._sections[0].waiting > 0:
                raise RuntimeError("there is no marker at the front of the queue")
            self._sections.popleft()


def _length(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
