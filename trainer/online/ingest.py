"""What has arrived on this rank: samples to train on, samples to validate with, and the count of every one of them."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import (
    ClassificationStart,
    DataMessage,
    FrameRole,
    PerspectiveEnd,
    Samples,
    ScanEnd,
    ScanStart,
    StreamStart,
)
from ptychoflow.trainer.interface.sample_format import SampleFormat
from ptychoflow.trainer.online.sample_queue import SampleQueue
from ptychoflow.trainer.online.settlement import Settlement

log = logging.getLogger(__name__)

NOT_USABLE = "values that are not finite, a class that was not announced, or a role that is not the trainer's"
NO_SCAN = "samples without index, or before the scan's announcement"


@dataclass
class SampleCounts:
    """This rank's side of the frame ledger; distinct frame ids."""

    trained: int = 0
    validation: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""

    def copy(self) -> SampleCounts:
        """Return a copy of its own."""
        return replace(self, rejected=self.rejected.copy())


@dataclass
class Progress:
    """How far this rank is with the stream: what a checkpoint must hold of it."""

    scan: StreamStart | None = None
    """The scan's announcement, once it has come."""
    frame_dtype: str | None = None
    """Numpy name of the frames' dtype, once the first sample has come."""
    largest_amplitude: float = 0.0
    done: dict[int, npt.NDArray[np.int32]] = field(default_factory=dict)
    """Indices by perspective of the frames that are trained on, kept for validation, or refused."""
    counts: SampleCounts = field(default_factory=SampleCounts)
    ended_perspectives: set[int] = field(default_factory=set)
    """Those whose end the loop has passed."""


class Arrivals:
    """Sorts messages into a queue of training samples and a store of validation samples, and counts.

    One thread calls `take`, another one trains and calls the rest. Frames and ends of perspectives that `earlier`
    holds are dropped when they come again.

    Args:
        sample_format: of an announced stream.
        queue_samples: `queue.is_full` once this many training samples wait.
        held: nothing is acknowledged before a checkpoint holds it.
        earlier: what a checkpoint held; this object goes on with it.
        validation: the validation samples that go with it, by perspective.
    """

    def __init__(
        self,
        sample_format: Callable[[StreamStart], SampleFormat],
        *,
        queue_samples: int,
        held: bool = False,
        earlier: Progress | None = None,
        validation: Mapping[int, list[Arrays]] | None = None,
    ) -> None:
        self.queue = SampleQueue(limit=queue_samples)
        self.settlement = Settlement(held=held)
        earlier = earlier or Progress()
        self.counts = earlier.counts
        self.scan = earlier.scan
        self._sample_format = sample_format
        self._format: SampleFormat | None = None if self.scan is None else sample_format(self.scan)
        self.frame_dtype = earlier.frame_dtype
        self.largest_amplitude = earlier.largest_amplitude
        self.failure: BaseException | None = None
        """What ended the receiving thread."""
        self._kept_to_the_end: list[int] = []
        """Messages that a trainer which is started again must be sent again: the scan's announcement and its end."""
        self._seen: defaultdict[int, set[int]] = defaultdict(set)
        for perspective, frames in earlier.done.items():
            self._seen[perspective].update(frames.tolist())
        self._waiting: deque[tuple[int, list[int]]] = deque()
        """Frames in the queue, in its order."""
        self._validation: defaultdict[int, list[Arrays]] = defaultdict(list, validation or {})
        self._new_validation: defaultdict[int, list[Arrays]] = defaultdict(list)
        self._held = held
        self._ended_perspectives = earlier.ended_perspectives
        self._lock = threading.RLock()

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

    def pass_perspective(self) -> None:
        """Remove the end of a perspective from the front of the queue; on all ranks after the same step."""
        marker = self.queue.marker
        self.queue.pass_marker()
        if isinstance(marker, PerspectiveEnd):
            self._ended_perspectives.add(marker.perspective)
        self.settlement.settle(1)

    def end_scan(self) -> None:
        """Let the scan's announcement and its end be acknowledged: nothing of the stream will be asked for again."""
        with self._lock:
            self.settlement.release(self._kept_to_the_end)
            self._kept_to_the_end = []

    def validation(self) -> dict[int, Arrays]:
        """Return the validation samples by perspective, as the arrays of the stream's format."""
        with self._lock:
            for perspective, parts in self._validation.items():
                joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
                self._validation[perspective] = [joined]
            return {perspective: parts[0] for perspective, parts in self._validation.items()}

    def progress(self) -> tuple[Progress, dict[int, list[Arrays]], list[int]]:
        """Return how far this rank is, the validation samples since the last call, and the messages that are done with.

        The messages are to be released once a checkpoint holds the rest.
        """
        with self._lock:
            new_validation, self._new_validation = self._new_validation, defaultdict(list)
            progress = Progress(
                scan=self.scan,
                frame_dtype=self.frame_dtype,
                largest_amplitude=self.largest_amplitude,
                done=self._done(),
                counts=self.counts.copy(),
                ended_perspectives=set(self._ended_perspectives),
            )
            return progress, dict(new_validation), self.settlement.cover()

    def take(self, sequence: int, message: DataMessage, arrays: Arrays) -> None:
        """Sort in one message of the stream.

        Raises:
            UserError: the announcement of another scan than the checkpoint's.
        """
        with self._lock:
            match message:
                case ScanStart() | ClassificationStart():
                    self._announce(message)
                    self._kept_to_the_end.append(sequence)
                    return
                case ScanEnd():
                    self.queue.put(message)
                    self._kept_to_the_end.append(sequence)
                    return
                case Samples():
                    self._take_samples(message.perspective, arrays)
                case PerspectiveEnd():
                    self._enqueue_end(message)
                case _:
                    log.warning("ignored a message %s, which is not for a trainer", type(message).__name__)
            self.settlement.close(sequence)

    def _announce(self, scan: StreamStart) -> None:
        if self.scan is not None and scan != self.scan:
            raise UserError(
                "the scan is another one than the checkpoint's: its frames, geometry or number of perspectives differ; "
                "resume with the configuration of the run, or start a new one"
            )
        self.scan, self._format = scan, self._sample_format(scan)

    def _enqueue_end(self, marker: PerspectiveEnd) -> None:
        if marker.perspective not in self._ended_perspectives:
            self.queue.put(marker)
            self.settlement.expect(1)

    def _settle(self, samples: int) -> None:
        with self._lock:
            self.settlement.settle(samples)
            while samples > 0:
                perspective, frames = self._waiting[0]
                self._waiting[0] = perspective, frames[samples:]
                samples -= min(samples, len(frames))
                if not self._waiting[0][1]:
                    self._waiting.popleft()

    def _done(self) -> dict[int, npt.NDArray[np.int32]]:
        waiting: defaultdict[int, set[int]] = defaultdict(set)
        for perspective, frames in self._waiting:
            waiting[perspective].update(frames)
        done = {perspective: seen - waiting[perspective] for perspective, seen in self._seen.items()}
        return {perspective: np.fromiter(frames, np.int32, len(frames)) for perspective, frames in done.items()}

    def _take_samples(self, perspective: int, arrays: Arrays) -> None:
        index = arrays.get("index")
        if self._format is None or index is None or index.ndim != 1:
            self._refuse(0 if index is None else index.size, NO_SCAN)
            return
        fresh = self._fresh(perspective, index)
        if (fault := self._format.fault(arrays, dtype=self.frame_dtype)) is not None:
            self._refuse(int(fresh.sum()), fault)
            return
        self.frame_dtype = arrays[self._format.network_input].dtype.name
        good = fresh & self._format.usable(arrays)
        self._refuse(int((fresh & ~good).sum()), NOT_USABLE)
        for role, keep in ((FrameRole.VALIDATION, self._store), (FrameRole.TRAIN, self._enqueue)):
            rows = good & (arrays["role"] == role)
            if rows.any():
                chosen = {name: arrays[name][rows] for name in ("index", *self._format.fields)}
                keep(perspective, chosen.pop("index").tolist(), chosen)

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

    def _store(self, perspective: int, frames: list[int], samples: Arrays) -> None:
        self._validation[perspective].append(samples)
        if self._held:
            self._new_validation[perspective].append(samples)
        self.counts.validation += len(frames)

    def _enqueue(self, perspective: int, frames: list[int], samples: Arrays) -> None:
        if self._format is not None:
            self.largest_amplitude = max(self.largest_amplitude, self._format.largest_amplitude(samples))
        self._waiting.append((perspective, frames))
        self.settlement.expect(len(frames))
        self.queue.put(samples)
