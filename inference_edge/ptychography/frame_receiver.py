"""What reaches the edge of a scan: its frames, references, and the ends of its perspectives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.frame_queue import FrameQueue
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock, diffraction_block
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.stitching.quality import reference_from_arrays
from ptychoflow.inference_edge.stitching.row_owners import ONE_OWNER, RowOwners
from ptychoflow.inference_edge.stream_receiver import StreamReceiver, require_shape
from ptychoflow.streaming.codec import Arrays, MalformedMessage
from ptychoflow.streaming.illumination import illumination_from_arrays
from ptychoflow.streaming.inbox import Delivery, Inbox
from ptychoflow.streaming.messages import NoReference, Probe, Reference, ScanStart


class FrameReceiver(StreamReceiver[ScanStart, Perspective, DiffractionBlock]):
    """Receives a scan; for the other arguments see `StreamReceiver`.

    Args:
        owners: threads that stitch what is received.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        queue: FrameQueue[Perspective, DiffractionBlock],
        queue_max: int,
        counter: EdgeCounter,
        warn: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
        closed: Iterable[int] = (),
        owners: RowOwners = ONE_OWNER,
    ) -> None:
        super().__init__(
            inbox,
            ScanStart,
            queue=queue,
            queue_max=queue_max,
            counter=counter,
            warn=warn,
            pause=pause,
            closed=closed,
        )
        self._owners = owners
        self.new_references: list[Perspective] = []
        """Perspectives whose reference came, or turned out not to come, since this list was last emptied."""
        self._closed_before = frozenset(self._closed)
        self._referenced: set[int] = set()
        self._repeated: set[int] = set()

    def _parse(self, arrays: Arrays, start: ScanStart) -> DiffractionBlock:
        return diffraction_block(arrays, start.frame_shape_px)

    def _open_section(self, index: int, angle_deg: float) -> Perspective:
        return Perspective(index, angle_deg, self._owners)

    def _keep_repeated(self, sequence: int, section: Perspective, block: DiffractionBlock) -> None:
        self.hold(section, [sequence])

    def _handle_start(self, start: ScanStart) -> None:
        require_shape("frames", start.frame_shape_px)
        require_shape("patches", start.target_shape_px)
        self._repeated = set(self._referenced)

    def _handle_other(self, delivery: Delivery) -> list[int]:
        match delivery.message:
            case Probe():
                return self._receive_probe(delivery.message, delivery)
            case Reference():
                return self._receive_reference(delivery.message, delivery)
            case NoReference(perspective=index) if index in self._closed:
                return self._drop(delivery.sequence)
            case NoReference(perspective=index) if index in self.sections:
                perspective = self.sections[index]
                perspective.reference_due = False
                return self._note_reference(perspective, delivery.sequence)
        return [delivery.sequence]

    def _receive_probe(self, message: Probe, delivery: Delivery) -> list[int]:
        if self.start is None:
            raise MalformedMessage("a probe came before the announcement of the frames that it makes")
        illumination = illumination_from_arrays(delivery.arrays, self.start.frame_shape_px)
        if message.perspective in self._closed:
            return self._drop(delivery.sequence)
        perspective = self._section(message.perspective, message.angle_deg)
        perspective.illumination = illumination
        self.hold(perspective, [delivery.sequence])
        return []

    def _receive_reference(self, message: Reference, delivery: Delivery) -> list[int]:
        reference = reference_from_arrays(delivery.arrays, message.origin_px)
        expected = message.perspective in self._repeated or message.perspective in self._closed_before
        self._repeated.discard(message.perspective)
        if message.perspective in self._closed:
            if not expected:
                self._warn(f"a reference for perspective {message.perspective} came after its images were written")
            return self._drop(delivery.sequence)
        self._referenced.add(message.perspective)
        perspective = self._section(message.perspective, message.angle_deg)
        if perspective.reference is not None and not expected:
            self._warn(f"another reference came for perspective {message.perspective}: scored with the newer one")
        perspective.set_reference(reference)
        return self._note_reference(perspective, delivery.sequence)

    def _note_reference(self, perspective: Perspective, sequence: int) -> list[int]:
        if perspective not in self.new_references:
            self.new_references.append(perspective)
        self.hold(perspective, [sequence])
        return []
