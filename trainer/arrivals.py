"""What has arrived on this rank: samples to train on, samples to validate with, and the count of every one of them."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streaming.codec import Arrays
from streaming.messages import DataMessage, FrameRole, PerspectiveEnd, Samples, ScanEnd, ScanStart
from trainer.pipelines.ptychography.pipeline import FIELDS
from trainer.sample_checks import batch_fault, usable
from trainer.sample_queue import SampleQueue

log = logging.getLogger(__name__)

NOT_USABLE = "values that are not finite, or a role that is not the trainer's"
NO_SCAN = "samples without index, or before the scan's announcement"


@dataclass
class SampleCounts:
    """This rank's side of the frame ledger; distinct frame ids."""

    trained: int = 0
    validation: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""


class Arrivals:
    """Sorts messages into a queue of training samples and a store of validation samples, and counts.

    One thread calls `take` and `settled`, another one trains and calls the rest.

    Args:
        queue_samples: `queue.is_full` once this many training samples wait.
    """

    def __init__(self, *, queue_samples: int) -> None:
        self.queue = SampleQueue(limit=queue_samples)
        self.counts = SampleCounts()
        self.scan: ScanStart | None = None
        """The scan's announcement, once it has come."""
        self.frame_dtype: str | None = None
        """Numpy name of the frames' dtype, once the first sample has come."""
        self.largest_amplitude = 0.0
        self.failure: BaseException | None = None
        """What ended the receiving thread."""
        self._scan_start_sequence: int | None = None
        self._seen: defaultdict[int, set[int]] = defaultdict(set)
        self._validation: defaultdict[int, list[Arrays]] = defaultdict(list)
        self._arrived_samples = 0
        self._settled_samples = 0
        self._open: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise what ended the receiving thread, if anything did."""
        if self.failure is not None:
            raise self.failure

    def trained(self, samples: int) -> None:
        """Count the next `samples` samples of the queue as trained on."""
        self.counts.trained += samples
        self._settle(samples)

    def reject(self, samples: int, *, reason: str) -> None:
        """Count the next `samples` samples of the queue as refused."""
        self.counts.rejected[reason] += samples
        self._settle(samples)

    def validation(self) -> dict[int, Arrays]:
        """Return the validation samples by perspective, as the arrays of `FIELDS`."""
        with self._lock:
            for perspective, parts in self._validation.items():
                joined = {name: np.concatenate([part[name] for part in parts]) for name in FIELDS}
                self._validation[perspective] = [joined]
            return {perspective: parts[0] for perspective, parts in self._validation.items()}

    def take(self, sequence: int, message: DataMessage, arrays: Arrays) -> None:
        """Sort in one message of the stream."""
        match message:
            case ScanStart():
                # Done with only at the scan's end: a trainer that is started again must be sent it again.
                self.scan, self._scan_start_sequence = message, sequence
                return
            case Samples():
                self._take_samples(message.perspective, arrays)
            case PerspectiveEnd():
                self.queue.put(message)
            case ScanEnd():
                self.queue.put(message)
                if self._scan_start_sequence is not None:
                    self._note_arrival(self._scan_start_sequence)
            case _:
                log.warning("ignored a message %s, which is not for a trainer", type(message).__name__)
        self._note_arrival(sequence)

    def settled(self) -> list[int]:
        """Return messages, each once, whose samples and all before them have been trained on, stored or refused.

        The scan's announcement comes with its end.
        """
        with self._lock:
            done: list[int] = []
            while self._open and self._open[0][0] <= self._settled_samples:
                done.append(self._open.popleft()[1])
            return done

    def _note_arrival(self, sequence: int) -> None:
        with self._lock:
            self._open.append((self._arrived_samples, sequence))

    def _settle(self, samples: int) -> None:
        with self._lock:
            self._settled_samples += samples

    def _take_samples(self, perspective: int, arrays: Arrays) -> None:
        index = arrays.get("index")
        if self.scan is None or index is None or index.ndim != 1:
            self._refuse(0 if index is None else index.size, NO_SCAN)
            return
        fresh = self._fresh(perspective, index)
        if (fault := batch_fault(arrays, self.scan, frame_dtype=self.frame_dtype)) is not None:
            self._refuse(int(fresh.sum()), fault)
            return
        self.frame_dtype = arrays["diffraction"].dtype.name
        good = fresh & usable(arrays)
        self._refuse(int((fresh & ~good).sum()), NOT_USABLE)
        self._store(perspective, arrays, good & (arrays["role"] == FrameRole.VALIDATION))
        self._enqueue(arrays, good & (arrays["role"] == FrameRole.TRAIN))

    def _fresh(self, perspective: int, index: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return bool (n,): frames that had not come before."""
        seen = self._seen[perspective]
        fresh = np.zeros(len(index), bool)
        for row, frame in enumerate(index.tolist()):
            fresh[row] = frame not in seen
            seen.add(frame)
        self.counts.duplicates += int((~fresh).sum())
        return fresh

    def _refuse(self, samples: int, reason: str) -> None:
        if samples > 0:
            self.counts.rejected[reason] += samples
            log.warning("refused %d samples: %s", samples, reason)

    def _store(self, perspective: int, arrays: Arrays, rows: npt.NDArray[np.bool_]) -> None:
        if rows.any():
            with self._lock:
                self._validation[perspective].append({name: arrays[name][rows] for name in FIELDS})
            self.counts.validation += int(rows.sum())

    def _enqueue(self, arrays: Arrays, rows: npt.NDArray[np.bool_]) -> None:
        if rows.any():
            self.largest_amplitude = max(self.largest_amplitude, float(arrays["amplitude"][rows].max()))
            self._arrived_samples += int(rows.sum())
            self.queue.put({name: arrays[name][rows] for name in FIELDS})
