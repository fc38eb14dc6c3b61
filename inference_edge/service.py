"""The edge service: images frames as they arrive with the newest weights, and sharpens what is kept when idle."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch

from inference_edge.archive import Archive, PerspectiveImages
from inference_edge.frame_block import FrameBlock, block_from_arrays, join
from inference_edge.inference import Imager
from inference_edge.mosaic import PlacedPatches, crop_centre, place_patches
from inference_edge.perspective import Perspective
from inference_edge.prediction import Prediction
from inference_edge.quality import reference_from_arrays
from inference_edge.reporting import STITCHED, Reporter
from inference_edge.settings import EdgeSettings
from inference_edge.weights import Model, WeightsIntake
from streaming.codec import Arrays, MalformedMessage
from streaming.errors import UserError
from streaming.events import MosaicKind, Part, PartState, PartStatus, WarningRaised
from streaming.inbox import Delivery, Inbox
from streaming.messages import Frames, PerspectiveEnd, Reference, ScanEnd, ScanStart
from streaming.settings import NetworkSettings, RunContext
from streaming.telemetry import TelemetrySender
from streaming.weights_channel import WeightsClient

log = logging.getLogger(__name__)

IDLE_S = 0.02
DELIVERIES_AT_ONCE = 64


def serve_edge(settings: EdgeSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event) -> None:
    """Image a scan until it is over and everything is imaged with the final weights, or until `stop` is set.

    Blocks. Sets the number of PyTorch's CPU threads of this process. Images are written to `run.directory / "images"`.

    Raises:
        UserError: CUDA is asked for and there is none, the images cannot be written, the positions cannot be right, or
            the trainer has ended without weights that can be used.
    """
    torch.set_num_threads(settings.threads)
    archive = Archive(run.directory / "images")
    with (
        closing(archive),
        closing(TelemetrySender(network, sender=Part.EDGE.value)) as telemetry,
        closing(WeightsClient(network, edge=Part.EDGE.value)) as weights,
        Inbox(network, consumer="edge", port=network.frames_port) as inbox,
    ):
        edge = _Edge(settings, inbox=inbox, weights=weights, telemetry=telemetry, archive=archive)
        edge.run(stop)


@dataclass(frozen=True)
class _Waiting:
    """Frames received and not yet imaged."""

    sequence: int
    perspective: Perspective
    block: FrameBlock
    acquired_at_s: float


class _Edge:
    def __init__(
        self,
        settings: EdgeSettings,
        *,
        inbox: Inbox,
        weights: WeightsClient,
        telemetry: TelemetrySender,
        archive: Archive,
    ) -> None:
        self._settings = settings
        self._inbox, self._telemetry, self._archive = inbox, telemetry, archive
        self._imager = Imager(settings)
        self._weights = WeightsIntake(weights, imager=self._imager, telemetry=telemetry)
        self._report = Reporter(telemetry, settings, on_first_pass=inbox.report_score)
        self._scan: ScanStart | None = None
        self._scan_start_sequence: int | None = None
        self._scan_ended = False
        self._perspectives: dict[int, Perspective] = {}
        self._closed: set[int] = set()
        self._kept: deque[Perspective] = deque()
        self._queue: deque[_Waiting] = deque()
        self._canary: npt.NDArray[Any] | None = None
        self._refresh_from_s = 0.0

    def run(self, stop: threading.Event) -> None:
        self._tell(PartState.STARTING, "waiting for the scan")
        while not (stop.is_set() or self._finished()):
            self._receive()
            self._take_weights()
            if not self._image_waiting():
                self._refresh_some()
            self._report_progress()
        self._finish()

    def _finished(self) -> bool:
        return self._scan_ended and self._weights.final_seen and not self._queue and self._to_refresh() is None

    # Receiving

    def _receive(self) -> None:
        timeout_s = 0.0 if self._busy() else IDLE_S
        for _ in range(DELIVERIES_AT_ONCE):
            if sum(len(waiting.block) for waiting in self._queue) >= self._settings.queue_max:
                time.sleep(timeout_s)
                return
            delivery = self._inbox.receive(timeout_s)
            if delivery is None:
                return
            self._dispatch(delivery)
            timeout_s = 0.0

    def _busy(self) -> bool:
        if self._weights.model is None:
            return False
        return bool(self._queue) or (self._may_refresh() and self._to_refresh() is not None)

    def _dispatch(self, delivery: Delivery) -> None:
        try:
            finished_with = self._take(delivery)
        except MalformedMessage as error:
            self._warn(f"dropped a message: {error}")
            finished_with = [delivery.sequence]
        self._inbox.acknowledge(finished_with)

    def _take(self, delivery: Delivery) -> list[int]:
        """Take a message in; return the sequence numbers that are finished with."""
        match delivery.message:
            case ScanStart():
                return self._begin(delivery.message, delivery.sequence)
            case Frames():
                return self._enqueue(delivery.message, delivery)
            case Reference():
                self._take_reference(delivery.message, delivery.arrays)
            case PerspectiveEnd(perspective=index, angle_deg=angle_deg) if index not in self._closed:
                self._perspective(index, angle_deg).ended = True
            case ScanEnd():
                return self._end(delivery.sequence)
        return [delivery.sequence]

    def _begin(self, scan: ScanStart, sequence: int) -> list[int]:
        # Acknowledged only with the scan's end: an edge that is started again must be sent it again.
        self._scan, self._scan_start_sequence = scan, sequence
        self._tell(PartState.RUNNING, "waiting for the first weights")
        return []

    def _end(self, sequence: int) -> list[int]:
        self._scan_ended = True
        return [sequence] if self._scan_start_sequence is None else [self._scan_start_sequence, sequence]

    def _enqueue(self, message: Frames, delivery: Delivery) -> list[int]:
        if self._scan is None:
            raise MalformedMessage("frames came before the scan's start")
        block = block_from_arrays(delivery.arrays, self._scan.frame_shape_px)
        if message.perspective in self._closed:
            self._report.counter.duplicates += len(block)
            return [delivery.sequence]
        perspective = self._perspective(message.perspective, message.angle_deg)
        new = perspective.drop_known(block)
        self._report.counter.duplicates += len(block) - len(new)
        if not len(new):
            return [delivery.sequence]
        perspective.queued += len(new)
        self._queue.append(_Waiting(delivery.sequence, perspective, new, message.acquired_at_s))
        self._canary = new.diffraction
        return []

    def _take_reference(self, message: Reference, arrays: Arrays) -> None:
        if message.perspective in self._closed or self._scan is None:
            return
        perspective = self._perspective(message.perspective, message.angle_deg)
        perspective.reference = reference_from_arrays(arrays, message.origin_px)
        self._report.reference(perspective, pixel_size_m=self._scan.object_pixel_size_m)
        if perspective.released and perspective.complete:
            self._retire(perspective)

    def _perspective(self, index: int, angle_deg: float) -> Perspective:
        return self._perspectives.setdefault(index, Perspective(index, angle_deg))

    # Imaging

    def _take_weights(self) -> None:
        if self._scan is None:
            return
        replaced = self._weights.poll(self._scan, self._canary)
        if self._weights.final_seen and self._weights.model is None:
            raise UserError("edge: no frame can be imaged, all weights up to the final ones were refused; see its log")
        if not replaced:
            return
        if self._weights.model is not None:
            self._tell(PartState.RUNNING, f"imaging with weights {self._weights.model.version}")
        if self._weights.final_seen:
            for perspective in self._kept:
                perspective.abandon_pass()

    def _image_waiting(self) -> bool:
        """Image what is waiting at the head of the queue; return whether anything was."""
        model = self._weights.model
        if model is None or not self._queue:
            return False
        taken = self._take_waiting()
        perspective = taken[0].perspective
        block, patches = self._image(model, join([waiting.block for waiting in taken]))
        perspective.add(block, patches, model.version)
        now_s = time.time()
        for waiting in taken:
            perspective.queued -= len(waiting.block)
            self._report.counter.imaged(len(waiting.block), acquired_at_s=waiting.acquired_at_s, now_s=now_s)
        self._inbox.acknowledge(waiting.sequence for waiting in taken)
        self._keep(perspective)
        return True

    def _take_waiting(self) -> list[_Waiting]:
        """Take batches of one perspective from the queue, `batch_max` frames at most or one batch."""
        taken = [self._queue.popleft()]
        frames = len(taken[0].block)
        while self._queue and self._queue[0].perspective is taken[0].perspective:
            frames += len(self._queue[0].block)
            if frames > self._settings.batch_max:
                break
            taken.append(self._queue.popleft())
        return taken

    def _image(self, model: Model, block: FrameBlock) -> tuple[FrameBlock, PlacedPatches]:
        """Return the frames that could be imaged, and their patches."""
        prediction = self._imager.predict(model.runner, block.diffraction)
        finite = prediction.finite()
        if not finite.all():
            self._warn(f"{int((~finite).sum())} frames were not stitched: their counts give no finite image")
            block = block.select(finite)
            prediction = Prediction(*(channel[finite] for channel in prediction))
        amplitude, phase = (crop_centre(channel, self._settings.patch_crop_px) for channel in prediction)
        return block, place_patches(amplitude, phase, block.position_px)

    def _keep(self, perspective: Perspective) -> None:
        """Keep the frames of the newest perspectives only."""
        if perspective in self._kept or perspective.released:
            return
        self._kept.append(perspective)
        while len(self._kept) > self._settings.keep:
            oldest = self._kept.popleft()
            oldest.release_frames()
            if oldest.complete:
                self._retire(oldest)

    # Imaging again

    def _to_refresh(self) -> Perspective | None:
        model = self._weights.model
        if model is None:
            return None
        return next((one for one in reversed(self._kept) if one.outdated(model.version)), None)

    def _may_refresh(self) -> bool:
        return self._weights.final_seen or time.monotonic() >= self._refresh_from_s

    def _refresh_some(self) -> None:
        """Image one batch of kept frames again, if weights are newer and other parts have had their share of time."""
        model, perspective = self._weights.model, self._to_refresh()
        if model is None or perspective is None or not self._may_refresh():
            return
        began_s = time.monotonic()
        block, patches = self._image(model, perspective.next_to_refresh(self._settings.batch_max))
        perspective.add_refreshed(block, patches, model.version)
        self._report.counter.refreshed += len(block)
        ended_s = time.monotonic()
        self._refresh_from_s = ended_s + (ended_s - began_s) * (1 / self._settings.refresh_share - 1)

    # Reporting

    def _report_progress(self) -> None:
        self._report.counts()
        if self._scan is None or self._weights.model is None:
            return
        for perspective in self._kept:
            self._report.perspective(perspective, self._weights.model, pixel_size_m=self._scan.object_pixel_size_m)

    def _retire(self, perspective: Perspective) -> None:
        """Report and write a perspective as it is now; forget it once it has been compared with its reference."""
        if self._scan is None or self._weights.model is None:
            return
        pixel_size_m = self._scan.object_pixel_size_m
        self._report.perspective(perspective, self._weights.model, pixel_size_m=pixel_size_m, at_once=True)
        self._archive.write(
            PerspectiveImages(
                perspective=perspective.index,
                angle_deg=perspective.angle_deg,
                pixel_size_m=pixel_size_m,
                min_coverage=self._settings.min_coverage,
                images={kind: perspective.rendering(kind).whole.image() for kind in STITCHED},
                model_versions={kind: sorted(perspective.rendering(kind).versions) for kind in STITCHED},
                reference=perspective.reference,
            )
        )
        if perspective.reference is not None:
            del self._perspectives[perspective.index]
            self._closed.add(perspective.index)

    def _finish(self) -> None:
        model = self._weights.model
        for perspective in list(self._perspectives.values()):
            nothing_new = perspective.released and perspective.complete
            if model is None or nothing_new or not perspective.rendering(MosaicKind.FIRST_PASS).whole.frames:
                continue
            if model.final:
                self._report.held_out(perspective, model)
            self._retire(perspective)
        self._report.counts(at_once=True)
        counter = self._report.counter
        self._tell(PartState.DONE, f"{counter.inferred} frames imaged, {counter.refreshed} times again")

    def _tell(self, state: PartState, text: str) -> None:
        log.info("%s: %s", state.value, text)
        self._telemetry.send(PartStatus(Part.EDGE, state, text))

    def _warn(self, text: str) -> None:
        log.warning("%s", text)
        self._telemetry.send(WarningRaised(Part.EDGE, text))
