"""What reaches the edge: a scan's frames, references, and the ends of its perspectives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ptychoflow.inference_edge.frame_block import FrameBlock, block_from_arrays
from ptychoflow.inference_edge.perspective import Perspective
from ptychoflow.inference_edge.quality import reference_from_arrays
from ptychoflow.inference_edge.reporting import EdgeCounter
from ptychoflow.inference_edge.waiting import Arrival, WaitingFrames
from ptychoflow.streaming.codec import MalformedMessage
from ptychoflow.streaming.inbox import Delivery, Inbox
from ptychoflow.streaming.messages import Frames, NoReference, PerspectiveEnd, Reference, ScanEnd, ScanStart

DELIVERIES_AT_ONCE = 16


class Arrivals:
    """Takes messages in and keeps what is needed until frames are imaged.

    Args:
        inbox: where the messages come from.
        queue_max: frames waiting in memory at most; beyond that nothing is received.
        spool_dir: where frames wait that are put off.
        counter: counts duplicates and refused frames.
        warn: tells the user.
        pause: waits that long while nothing can be received, or shorter if something else is to be done.
        closed: perspectives that an edge before this one is done with; what comes for them is dropped.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        queue_max: int,
        spool_dir: Path,
        counter: EdgeCounter,
        warn: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
        closed: Iterable[int] = (),
    ) -> None:
        self.scan: ScanStart | None = None
        self.scan_ended = False
        self.perspectives: dict[int, Perspective] = {}
        """Those that can still change."""
        self.waiting = WaitingFrames(spool_dir)
        self.newest: FrameBlock | None = None
        """The frames received last."""
        self.new_references: list[Perspective] = []
        """Perspectives whose reference came, or turned out not to come, since this list was last emptied."""
        self.final: list[int] = []
        """Messages about perspectives that are closed, to be acknowledged once the disk holds their images."""
        self._inbox, self._queue_max = inbox, queue_max
        self._counter, self._warn, self._pause = counter, warn, pause
        self._closed_before = frozenset(closed)
        self._closed = set(self._closed_before)
        self._referenced: set[int] = set()
        self._repeated: set[int] = set()
        self._bounds: list[int] = []

    def receive(self, timeout_s: float) -> None:
        """Take in what has arrived; wait at most `timeout_s` seconds for the first message."""
        finished: list[int] = []
        for _ in range(DELIVERIES_AT_ONCE):
            if self.waiting.in_turn >= self._queue_max:
                self._pause(timeout_s)
                break
            delivery = self._inbox.receive(timeout_s)
            if delivery is None:
                break
            finished += self._finished_with(delivery)
            timeout_s = 0.0
        self._inbox.acknowledge(finished)

    def close(self, perspective: Perspective) -> None:
        """Forget a perspective; what still comes for it is dropped."""
        del self.perspectives[perspective.index]
        self._closed.add(perspective.index)
        self.final += perspective.held

    def finish(self) -> None:
        """Acknowledge the scan's start and end too; until then an edge that is started again is sent them again."""
        self._inbox.acknowledge([*self.final, *self._bounds])

    def hold(self, perspective: Perspective, sequences: list[int]) -> None:
        """Have messages about a perspective kept for an edge that is started again, until its images are final."""
        perspective.held += sequences
        self._inbox.hold(sequences)

    def _finished_with(self, delivery: Delivery) -> list[int]:
        try:
            return self._take(delivery)
        except MalformedMessage as error:
            if isinstance(delivery.message, Frames):
                self._counter.refused += len(delivery.arrays.get("index", ()))
            self._warn(f"dropped a message: {error}")
            return [delivery.sequence]

    def _take(self, delivery: Delivery) -> list[int]:
        """Take a message in; return the sequence numbers that are finished with."""
        finished = [delivery.sequence]
        match delivery.message:
            case ScanStart():
                # if not for the first time, it is an acquisition that was started again and sends everything again
                self.scan, self.scan_ended, self._repeated = delivery.message, False, set(self._referenced)
                self._bounds.append(delivery.sequence)
                finished = []
            case Frames():
                finished = self._enqueue(delivery.message, delivery)
            case Reference():
                finished = self._take_reference(delivery.message, delivery)
            case NoReference(perspective=index) | PerspectiveEnd(perspective=index) if index in self._closed:
                finished = self._drop(delivery.sequence)
            case NoReference(perspective=index) if index in self.perspectives:
                finished = self._expect_no_reference(self.perspectives[index], delivery.sequence)
            case PerspectiveEnd(perspective=index, angle_deg=angle_deg):
                perspective = self._perspective(index, angle_deg)
                perspective.ended = True
                self.hold(perspective, finished)
                finished = []
            case ScanEnd():
                self.scan_ended = True
                self._bounds.append(delivery.sequence)
                finished = []
        return finished

    def _enqueue(self, message: Frames, delivery: Delivery) -> list[int]:
        if self.scan is None:
            raise MalformedMessage("frames came before the scan's start")
        block = block_from_arrays(delivery.arrays, self.scan.frame_shape_px)
        if message.perspective in self._closed:
            self._counter.duplicates += len(block)
            return self._drop(delivery.sequence)
        perspective = self._perspective(message.perspective, message.angle_deg)
        new = perspective.drop_known(block)
        self._counter.duplicates += len(block) - len(new)
        if not len(new):
            self.hold(perspective, [delivery.sequence])
            return []
        perspective.queued += len(new)
        self.waiting.add(Arrival(delivery.sequence, perspective, message.acquired_at_s, left=len(new)), new)
        self.newest = new
        return []

    def _take_reference(self, message: Reference, delivery: Delivery) -> list[int]:
        reference = reference_from_arrays(delivery.arrays, message.origin_px)
        expected = message.perspective in self._repeated or message.perspective in self._closed_before
        self._repeated.discard(message.perspective)
        if message.perspective in self._closed:
            if not expected:
                self._warn(f"a reference for perspective {message.perspective} came after its images were written")
            return self._drop(delivery.sequence)
        self._referenced.add(message.perspective)
        perspective = self._perspective(message.perspective, message.angle_deg)
        if perspective.reference is not None and not expected:
            self._warn(f"another reference came for perspective {message.perspective}: scored with the newer one")
        perspective.take_reference(reference)
        if perspective not in self.new_references:
            self.new_references.append(perspective)
        self.hold(perspective, [delivery.sequence])
        return []

    def _drop(self, sequence: int) -> list[int]:
        """Have a message about a closed perspective acknowledged once the disk holds that one's images."""
        self.final.append(sequence)
        return []

    def _expect_no_reference(self, perspective: Perspective, sequence: int) -> list[int]:
        perspective.reference_due = False
        if perspective not in self.new_references:
            self.new_references.append(perspective)
        self.hold(perspective, [sequence])
        return []

    def _perspective(self, index: int, angle_deg: float) -> Perspective:
        return self.perspectives.setdefault(index, Perspective(index, angle_deg))
