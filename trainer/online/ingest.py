"""Sorts what arrives on this rank: samples to train on, samples to validate with, and the count of each of them."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import (
    ClassificationStart,
    DataMessage,
    FrameRole,
    PerspectiveEnd,
    Probe,
    Samples,
    ScanEnd,
    ScanStart,
    StreamStart,
    UnlabelledFrames,
)
from ptychoflow.trainer.interface.sample_format import SampleFormat, dtype_name
from ptychoflow.trainer.interface.stream import SectionEnd
from ptychoflow.trainer.online.frame_indices import FrameIndices, Runs
from ptychoflow.trainer.online.sample_queue import SampleCounts, SampleQueue
from ptychoflow.trainer.online.unlabelled_frames import UnlabelledStore
from ptychoflow.trainer.online.validation_store import ValidationStore

log = logging.getLogger(__name__)

NOT_USABLE = "values that are not finite, a class that was not announced, or a role that is not the trainer's"
NO_SCAN = "samples without an index of int32, or before the scan's announcement"

FormatOf = Callable[[StreamStart], SampleFormat]
"""Says what the samples of an announced stream look like."""


@dataclass
class Progress:
    """How far this rank is with the stream: what a checkpoint must hold of it."""

    scan: StreamStart | None = None
    """The scan's announcement, once it has come."""
    frame_dtype: str | None = None
    """Numpy name of the frames' dtype, once the first sample has come."""
    done: dict[int, Runs] = field(default_factory=dict)
    """By perspective, the frames that are trained on, kept for validation, or refused."""
    counts: SampleCounts = field(default_factory=SampleCounts)
    ended_perspectives: set[int] = field(default_factory=set)
    """Those whose end the loop has passed."""


class SampleIngest:
    """Sorts messages into a queue of training samples and a store of validation samples, and counts.

    One thread calls `route_message`, another one trains and calls the rest. Frames and ends of perspectives that
    `earlier` holds are dropped when they come again.

    Args:
        format_of: chooses the format of samples by the announcement.
        queue_samples: nothing should be received once this many training samples wait.
        until_checkpoint: nothing is acknowledged before a checkpoint holds it.
        spool_dir: for validation samples that memory does not hold; None keeps all in memory.
        earlier: what a checkpoint held; this object goes on with it.
        validation: the validation samples that go with it, by perspective.
        pinned: minibatches lie in page-locked memory, for a GPU.
    """

    def __init__(
        self,
        format_of: FormatOf,
        *,
        queue_samples: int,
        until_checkpoint: bool = False,
        spool_dir: Path | None = None,
        earlier: Progress | None = None,
        validation: Mapping[int, list[Arrays]] | None = None,
        pinned: bool = False,
    ) -> None:
        earlier = earlier or Progress()
        self.counts = earlier.counts
        self.queue = SampleQueue(
            limit=queue_samples,
            until_checkpoint=until_checkpoint,
            counts=earlier.counts,
            passed_sections=earlier.ended_perspectives,
            pinned=pinned,
        )
        self.scan = earlier.scan
        self.frame_dtype = earlier.frame_dtype
        self.unlabelled: UnlabelledStore | None = None
        """Takes frames that come before their ground truth; without, they are let go."""
        self.has_samples = earlier.counts.trained > 0
        """A sample to train on has come."""
        self._format_of = format_of
        self._format: SampleFormat | None = None if self.scan is None else format_of(self.scan)
        self._seen: defaultdict[int, FrameIndices] = defaultdict(FrameIndices)
        self._seen |= {perspective: FrameIndices(runs) for perspective, runs in earlier.done.items()}
        self._validation = ValidationStore(validation, spool_dir=spool_dir)
        self._new_validation: defaultdict[int, list[Arrays]] = defaultdict(list)
        self._until_checkpoint = until_checkpoint
        self._routing = threading.Lock()

    def route_message(self, sequence: int, message: DataMessage, arrays: Arrays) -> None:
        """Sort one message of the stream.

        Raises:
            UserError: the announcement of another scan than the checkpoint's.
        """
        with self._routing:
            self._route(sequence, message, arrays)

    def hold_to(self, dtype: str) -> None:
        """Take samples with frames of this dtype alone, by its NumPy name, and refuse those of another that wait."""
        with self._routing:
            own, self.frame_dtype = self.frame_dtype, dtype
            if own not in (None, dtype):
                reason = f"frames are {own}, expected {dtype}"
                if refused := self.queue.refuse_waiting(reason):
                    log.warning("refused %d samples: %s", refused, reason)

    def _route(self, sequence: int, message: DataMessage, arrays: Arrays) -> None:
        match message:
            case ScanStart() | ClassificationStart():
                self._announce(message)
                self.queue.keep_for_restart(sequence)
            case ScanEnd():
                self.queue.put_stream_end()
                self.queue.keep_for_restart(sequence)
            case Probe() | UnlabelledFrames():
                # the thread that trains may set it to None any time
                unlabelled = self.unlabelled
                if unlabelled is not None and isinstance(self.scan, ScanStart):
                    unlabelled.take(message, arrays, self.scan)
                self.queue.put_settled(sequence)
            case Samples():
                self._ingest_samples(sequence, message.perspective, arrays)
            case PerspectiveEnd():
                with self.queue.lock:
                    self._seen[message.perspective].sort_in()
                self.queue.put_section_end(sequence, SectionEnd(message.perspective))
            case _:
                log.warning("ignored a message %s, which is not for a trainer", type(message).__name__)
                self.queue.put_settled(sequence)

    def validation(self) -> dict[int, Arrays]:
        """Return the validation samples by perspective, as the arrays of the stream's format."""
        with self.queue.lock:
            return self._validation.joined()

    def progress(self) -> tuple[Progress, dict[int, list[Arrays]], list[int]]:
        """Return how far this rank is, the validation samples since the last call, and the messages that are done with.

        The messages are to be released once a checkpoint holds the rest.
        """
        with self.queue.lock:
            new_validation, self._new_validation = self._new_validation, defaultdict(list)
            progress = Progress(
                scan=self.scan,
                frame_dtype=self.frame_dtype,
                done=self._done(),
                counts=self.counts.copy(),
                ended_perspectives=set(self.queue.passed_sections),
            )
            return progress, dict(new_validation), self.queue.pop_settled()

    def _announce(self, scan: StreamStart) -> None:
        # a run's folder may have got another name before the run was resumed
        if self.scan is not None and msgspec.structs.replace(scan, run=self.scan.run) != self.scan:
            raise UserError(
                "the scan is another one than the checkpoint's: its frames, geometry or number of perspectives differ; "
                "resume with the configuration of the run, or start a new one"
            )
        self.scan, self._format = scan, self._format_of(scan)

    def _done(self) -> dict[int, Runs]:
        pending = self.queue.pending_frames()
        return {perspective: seen.without(pending.get(perspective, set())) for perspective, seen in self._seen.items()}

    def _ingest_samples(self, sequence: int, perspective: int, arrays: Arrays) -> None:
        index, sample_format = arrays.get("index"), self._format
        if sample_format is None or index is None or index.ndim != 1 or index.dtype != np.int32:
            self._refuse(0 if index is None else index.size, NO_SCAN)
            self.queue.put_settled(sequence)
            return
        with self.queue.lock:  # a checkpoint may be looking through them; only this thread adds any
            fresh = self._seen[perspective].fresh(index)
        fault = sample_format.fault(arrays, dtype=self.frame_dtype)
        if fault is None:
            good = fresh & sample_format.usable(arrays)
            self.frame_dtype = dtype_name(arrays[sample_format.network_input].dtype)
        else:
            good = np.zeros_like(fresh)
        validation = _rows_of(arrays, good, FrameRole.VALIDATION)
        training = _rows_of(arrays, good, FrameRole.TRAIN)
        samples = {name: arrays[name] for name in sample_format.fields} if good.any() else {}
        kept = {name: array[validation] for name, array in samples.items()} if validation.any() else {}
        staged = self.queue.stage(samples, training)
        # What took long is done: a checkpoint sees all of a message or nothing, and never waits.
        with self.queue.lock:
            self._seen[perspective].add(index)
            self.counts.duplicates += int((~fresh).sum())
            self._refuse(int((fresh & ~good).sum()), fault or NOT_USABLE)
            self._store(perspective, kept, count=int(validation.sum()))
            self.queue.put_samples(sequence, perspective, index[training].tolist(), staged)
            self.has_samples |= bool(training.any())

    def _refuse(self, samples: int, reason: str) -> None:
        if samples > 0:
            self.counts.rejected[reason] += samples
            log.warning("refused %d samples: %s", samples, reason)

    def _store(self, perspective: int, samples: Arrays, *, count: int) -> None:
        if not count:
            return
        self._validation.append(perspective, samples)
        if self._until_checkpoint:
            self._new_validation[perspective].append(samples)
        self.counts.validation += count


def _rows_of(arrays: Arrays, good: npt.NDArray[np.bool_], role: FrameRole) -> npt.NDArray[np.bool_]:
    """Return which samples, (n,), have one role, among those that are good."""
    return good & (arrays["role"] == int(role)) if good.any() else good
