"""The edge service: images frames as they arrive with the newest weights, and sharpens what is kept when idle."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import deque
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch

from ptychoflow.inference_edge.archive import Archive, PerspectiveImages
from ptychoflow.inference_edge.arrivals import Arrivals
from ptychoflow.inference_edge.first_pass import FirstPass
from ptychoflow.inference_edge.imaging import Imaging
from ptychoflow.inference_edge.inference import Imager
from ptychoflow.inference_edge.inference_thread import InferenceThread
from ptychoflow.inference_edge.overload import OverloadWatch
from ptychoflow.inference_edge.perspective import Perspective
from ptychoflow.inference_edge.reporting import STITCHED, Reporter
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.spreading import prepare_stitching
from ptychoflow.inference_edge.weights import Canary, Known, Model, accept_weights, blank_canary
from ptychoflow.inference_edge.weights_intake import Accept, WeightsIntake, open_weights
from ptychoflow.streaming.commands import CommandReceiver
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import MosaicKind, Part, PartState, PartStatus, WarningRaised
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import ScanStart
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender

log = logging.getLogger(__name__)

IDLE_S = 0.02
CANARY_FRAMES = 16


def serve_edge(settings: EdgeSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event) -> None:
    """Image a scan until it is over and everything is imaged with the final weights, or until `stop` is set.

    Blocks. Sets the number of PyTorch's CPU threads of this process, and exempts what it has loaded from the search for
    garbage from the first weights until it returns. Images are written to `run.folder.images`.
    Acquisition and trainer may come later, break off and come back.

    Raises:
        UserError: CUDA or a backend is asked for that is not there, the images cannot be written, or the trainer has
            ended without weights that can be used.
    """
    torch.set_num_threads(settings.threads)
    prepare_stitching()
    with ExitStack() as stack:
        # what stays exempt at the interpreter's end is reported as leaked by libraries that count their objects
        stack.callback(gc.unfreeze)
        archive = stack.enter_context(closing(Archive(run.folder)))
        telemetry = stack.enter_context(closing(TelemetrySender(network, part=Part.EDGE)))
        commands = stack.enter_context(closing(CommandReceiver(network)))
        warn = partial(_send_warning, telemetry)
        imager = Imager(settings)
        thread = stack.enter_context(closing(InferenceThread(imager.predict)))
        inbox = stack.enter_context(
            Inbox(network, consumer="edge", port=network.frames_port, warn=warn, wake=thread.done)
        )
        weights: WeightsIntake[Model] = stack.enter_context(
            open_weights(network, run, telemetry=telemetry, weights_kept=settings.weights_kept)
        )
        edge = _Edge(
            settings,
            inbox=inbox,
            imager=imager,
            thread=thread,
            weights=weights,
            telemetry=telemetry,
            archive=archive,
            folder=run.directory,
        )
        edge.run(commands, stop)


def _send_warning(telemetry: TelemetrySender, text: str) -> None:
    telemetry.send(WarningRaised(text))


class _Edge:
    def __init__(
        self,
        settings: EdgeSettings,
        *,
        inbox: Inbox,
        imager: Imager,
        thread: InferenceThread,
        weights: WeightsIntake[Model],
        telemetry: TelemetrySender,
        archive: Archive,
        folder: Path,
    ) -> None:
        self._settings = settings
        self._inbox, self._telemetry, self._archive = inbox, telemetry, archive
        self._imager, self._thread, self._weights = imager, thread, weights
        self._report = Reporter(telemetry, settings, on_first_pass=inbox.report_score)
        closed = archive.closed()
        self._report.counter.inferred = sum(closed.values())
        self._arrivals = Arrivals(
            inbox,
            queue_max=settings.queue_max,
            spool_dir=folder,
            counter=self._report.counter,
            warn=self._warn,
            pause=thread.wait,
            closed=closed,
        )
        self._imaging = Imaging(settings, thread=thread, weights=weights, warn=self._warn)
        self._first_pass = FirstPass(self._arrivals, self._imaging, counter=self._report.counter, warn=self._warn)
        self._overload = OverloadWatch(settings, self._arrivals.waiting, warn=self._warn)
        self._announced: ScanStart | None = None
        self._kept: deque[Perspective] = deque()
        self._refresh_from_s = 0.0

    def run(self, commands: CommandReceiver, stop: threading.Event) -> None:
        self._tell(PartState.STARTING, "waiting for the scan")
        while not (stop.is_set() or self._finished()):
            self._arrivals.receive(0.0 if self._busy() else IDLE_S)
            self._thread.note_done()
            self._take_references()
            self._heed(commands)
            self._take_weights()
            self._overload.watch(self._imaging.sizer, under_way=self._first_pass.under_way)
            if not self._image_waiting():
                self._refresh_some()
            self._report_progress()
            self._settle()
        finished = self._finished()
        self._finish()
        if finished:
            self._archive.wait()
            self._arrivals.finish()
        self._arrivals.waiting.close()

    def _finished(self) -> bool:
        all_imaged = not self._unimaged() and self._to_refresh() is None
        return self._arrivals.scan_ended and self._weights.final_seen and all_imaged

    def _unimaged(self) -> int:
        """Return how many frames wait or are with the network."""
        waiting = self._arrivals.waiting
        return waiting.in_turn + waiting.put_off + self._first_pass.under_way

    def _busy(self) -> bool:
        """Whether there is something to do at once; what the network is computing tells when it is done."""
        if self._weights.model is None:
            return False
        if self._first_pass.can_advance:
            return True
        return not self._first_pass.under_way and self._may_refresh() and self._to_refresh() is not None

    def _settle(self) -> None:
        """Let the publisher forget what led to images that are final, once the disk holds those."""
        if self._archive.idle and self._arrivals.final:
            self._inbox.acknowledge(self._arrivals.final)
            self._arrivals.final = []

    # Weights

    def _heed(self, commands: CommandReceiver) -> None:
        if self._weights.heed(commands):
            self._begin_to_use_weights()

    def _take_weights(self) -> None:
        scan = self._arrivals.scan
        if scan is None:
            return
        if scan is not self._announced:
            self._announced = scan
            self._tell(PartState.RUNNING, "waiting for the first weights" if self._weights.model is None else "imaging")
        replaced = self._weights.settle()
        if self._weights.final_seen and self._weights.model is None:
            raise UserError("edge: no frame can be imaged, all weights up to the final ones were refused; see its log")
        if replaced:
            self._begin_to_use_weights()
            if not gc.get_freeze_count():
                # libraries are loaded now: a search of all their objects for garbage would halt imaging for 0.3 s
                gc.freeze()
        self._weights.fetch(lambda: self._check(scan))

    def _begin_to_use_weights(self) -> None:
        if self._weights.model is not None:
            self._tell(PartState.RUNNING, f"imaging with weights {self._weights.model.version}")
        if self._weights.final_seen:
            for perspective in self._kept:
                perspective.abandon_pass()

    def _check(self, scan: ScanStart) -> Accept[Model]:
        """Return how to check weights, on frames chosen now."""
        return partial(
            accept_weights,
            scan=scan,
            imager=self._imager,
            canary=self._canary(scan),
            refuse_below_db=self._settings.refuse_below_db,
        )

    def _canary(self, scan: ScanStart) -> Canary:
        """Return frames to try weights on: with a known reference where there is one, else the newest."""
        model = self._weights.model
        for perspective in reversed(self._kept):
            if model is not None and perspective.reference is not None and perspective.kept:
                frames = perspective.some_frames(CANARY_FRAMES)
                prediction = self._thread.predict(model.runner, frames.diffraction)
                return Canary(frames.diffraction, Known(frames.position_px, perspective.reference, prediction))
        newest = self._arrivals.newest
        return blank_canary(scan) if newest is None else Canary(newest.head(CANARY_FRAMES).diffraction)

    # Imaging

    def _take_references(self) -> None:
        if self._arrivals.scan is None:
            return
        while self._arrivals.new_references:
            perspective = self._arrivals.new_references.pop(0)
            self._report.reference(perspective, pixel_size_m=self._arrivals.scan.object_pixel_size_m)
            if perspective.released and perspective.complete:
                self._retire(perspective)

    def _image_waiting(self) -> bool:
        """Go on with frames that have not been imaged yet; return whether there are any."""
        model = self._weights.model
        if model is None:
            return False
        if (perspective := self._first_pass.advance(model)) is not None:
            self._keep(perspective)
        return bool(self._first_pass.under_way)

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
        self._let_go_unscored()

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
        imaged = self._imaging.image(model, perspective.next_to_refresh(self._imaging.sizer.frames))
        perspective.add_refreshed(imaged.block, imaged.patches, imaged.version)
        self._report.counter.refreshed += len(imaged.block)
        ended_s = time.monotonic()
        self._refresh_from_s = ended_s + (ended_s - began_s) * (1 / self._settings.refresh_share - 1)

    # Reporting

    def _report_progress(self) -> None:
        counter = self._report.counter
        counter.waiting, counter.put_off = self._unimaged(), self._overload.put_off
        self._report.counts()
        if self._arrivals.scan is None or self._weights.model is None:
            return
        pixel_size_m = self._arrivals.scan.object_pixel_size_m
        for perspective in self._kept:
            self._report.perspective(perspective, self._weights.model, pixel_size_m=pixel_size_m)

    def _retire(self, perspective: Perspective) -> None:
        """Report and write a perspective as it is now; forget it unless its reference is still to come."""
        if self._arrivals.scan is None or self._weights.model is None:
            return
        pixel_size_m = self._arrivals.scan.object_pixel_size_m
        self._report.perspective(perspective, self._weights.model, pixel_size_m=pixel_size_m, at_once=True)
        closes = perspective.reference is not None or not perspective.reference_due
        final = closes and perspective.released and perspective.complete
        self._archive.write(
            PerspectiveImages(
                perspective=perspective.index,
                angle_deg=perspective.angle_deg,
                pixel_size_m=pixel_size_m,
                min_coverage=self._settings.min_coverage,
                images={kind: perspective.rendering(kind).whole.image() for kind in STITCHED},
                model_versions={kind: sorted(perspective.rendering(kind).versions) for kind in STITCHED},
                reference=perspective.reference,
                closed_frames=perspective.received if final else None,
            )
        )
        self._report.forget(perspective)
        if closes:
            self._arrivals.close(perspective)

    def _let_go_unscored(self) -> None:
        """Stop waiting for references that have been awaited for very long."""
        unscored = [one for one in self._arrivals.perspectives.values() if one.released and one.complete]
        for perspective in unscored[: -self._settings.keep_unscored]:
            log.info("perspective %d: no reference came, its image stays without scores", perspective.index)
            perspective.reference_due = False
            self._retire(perspective)

    def _finish(self) -> None:
        model = self._weights.model
        without_reference = [one.index for one in self._arrivals.perspectives.values() if one.reference is None]
        for perspective in list(self._arrivals.perspectives.values()):
            nothing_new = perspective.released and perspective.complete
            if model is None or nothing_new or not perspective.rendering(MosaicKind.FIRST_PASS).whole.frames:
                continue
            if self._weights.final_seen:
                self._report.held_out(perspective, model)
            self._retire(perspective)
        self._report.counts(at_once=True)
        counter = self._report.counter
        unscored = f"; perspectives without a reference: {len(without_reference)}" if without_reference else ""
        self._tell(PartState.DONE, f"{counter.inferred} frames imaged, {counter.refreshed} times again{unscored}")

    def _tell(self, state: PartState, text: str) -> None:
        log.info("%s: %s", state.value, text)
        self._telemetry.send(PartStatus(state, text))

    def _warn(self, text: str) -> None:
        log.warning("%s", text)
        _send_warning(self._telemetry, text)
