"""The edge of a scan: images frames as they arrive with the newest weights, and sharpens what is kept when idle."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import closing
from functools import partial

import numpy as np
import torch

from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.edge import Edge, EdgeLinks
from ptychoflow.inference_edge.ptychography.archive import Archive, PerspectiveImages
from ptychoflow.inference_edge.ptychography.deferring_queue import DeferringQueue
from ptychoflow.inference_edge.ptychography.first_pass import FirstPass
from ptychoflow.inference_edge.ptychography.frame_receiver import FrameReceiver
from ptychoflow.inference_edge.ptychography.model import Canary, Known, Model, blank_canary, check_weights
from ptychoflow.inference_edge.ptychography.overload import OverloadWatch
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.ptychography.reconstructor import Reconstructor
from ptychoflow.inference_edge.ptychography.reporting import STITCHED, Reporter
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.stitching.row_owners import RowOwners, choose_threads
from ptychoflow.inference_edge.stitching.spreading import prepare_stitching
from ptychoflow.inference_edge.weights_receiver import Check
from ptychoflow.streaming.device import available_processors
from ptychoflow.streaming.events import MosaicKind, PartState
from ptychoflow.streaming.messages import FirstPassImage, ScanStart
from ptychoflow.streaming.settings import NetworkSettings, RunContext

log = logging.getLogger(__name__)

CANARY_FRAMES = 16


def serve_edge(
    settings: EdgeSettings,
    *,
    network: NetworkSettings,
    run: RunContext,
    stop: threading.Event,
    factory: RunnerFactory | None = None,
) -> None:
    """Image a scan until it is over and everything is imaged with the final weights, or until `stop` is set.

    Blocks. Sets the number of PyTorch's CPU threads of this process, and exempts what it has loaded from the search for
    garbage from the first weights until it returns. Images are written to `run.folder.images`.
    Acquisition and trainer may come later, break off and come back.

    Args:
        settings: of the edge.
        network: where the other parts are.
        run: which run, and its folder.
        stop: ends the edge.
        factory: makes networks ready to run; by the settings without.

    Raises:
        UserError: CUDA or a backend is asked for that is not there, the images cannot be written, or the trainer has
            ended without weights that can be used.
    """
    torch.set_num_threads(settings.threads)
    prepare_stitching()
    factory = factory or RunnerFactory(settings)
    with (
        closing(RowOwners(_stitching_threads(settings, factory))) as owners,
        closing(Archive(run.folder)) as archive,
        closing(DeferringQueue(run.directory)) as queue,
        EdgeLinks[Model].open(settings, network=network, run=run) as links,
        closing(
            Reconstructor(settings, weights=links.weights, wake_up=links.wake_up, warn=links.warn)
        ) as reconstructor,
    ):
        ScanEdge(
            settings,
            links,
            factory=factory,
            reconstructor=reconstructor,
            queue=queue,
            archive=archive,
            owners=owners,
        ).run(stop)


def _stitching_threads(settings: EdgeSettings, factory: RunnerFactory) -> int:
    return choose_threads(
        processors=available_processors(), computing=factory.processors, at_most=settings.stitching_threads_max
    )


class ScanEdge(Edge[ScanStart, Model]):
    """Images frames once on arrival, and kept ones again with newer weights.

    Args:
        settings: of the edge.
        links: to the other parts.
        factory: makes networks ready to run.
        reconstructor: runs them.
        queue: where frames wait.
        archive: writes perspectives.
        owners: threads that stitch.
    """

    SOURCE = "the scan"
    ACTIVITY = "imaging"

    def __init__(
        self,
        settings: EdgeSettings,
        links: EdgeLinks[Model],
        *,
        factory: RunnerFactory,
        reconstructor: Reconstructor,
        queue: DeferringQueue,
        archive: Archive,
        owners: RowOwners,
    ) -> None:
        self._settings, self._factory, self._archive = settings, factory, archive
        self._reconstructor, self._queue = reconstructor, queue
        self._reporter = Reporter(
            links.telemetry,
            settings,
            on_first_pass=links.inbox.report_score,
            on_residual=links.inbox.report_residual,
        )
        closed = archive.closed()
        self._counter = self._reporter.counter
        self._counter.inferred = sum(closed.values())
        self._frames = FrameReceiver(
            links.inbox,
            queue=queue,
            queue_max=settings.queue_max,
            counter=self._counter,
            warn=links.warn,
            pause=links.wake_up.wait,
            closed=closed,
            owners=owners,
        )
        super().__init__(links, self._frames)
        self._first_pass = FirstPass(
            queue, reconstructor, counter=self._counter, hold=self._frames.hold, warn=links.warn
        )
        self._overload = OverloadWatch(settings, queue, warn=links.warn)
        self._kept: deque[Perspective] = deque()
        self._let_go_early: list[Perspective] = []
        """Those let go of before they were complete."""
        self._refresh_from_s = 0.0

    def _finished(self) -> bool:
        return super()._finished() and self._to_refresh() is None

    def _unimaged(self) -> int:
        return self._queue.frames + self._first_pass.under_way

    def _may_receive(self) -> bool:
        """With a disk that does not keep up, frames wait where they are kept on one: at the acquisition.

        While the network has enough to do, nothing is gained by taking one message at a time; that it is done wakes.
        """
        return not (self._archive.full or (self._frames.emptied and self._first_pass.supplied))

    def _busy(self) -> bool:
        """Whether there is something to do at once; what the network is computing tells when it is done."""
        if self._weights.model is None or self._archive.full:
            return False
        if self._first_pass.can_advance:
            return True
        return not self._first_pass.under_way and self._may_refresh() and self._to_refresh() is not None

    def _idle_s(self) -> float:
        if self._weights.model is None or self._to_refresh() is None:
            return super()._idle_s()
        return min(super()._idle_s(), max(0.0, self._refresh_from_s - time.monotonic()))

    def _advance(self) -> None:
        if not self._archive.full:
            self._handle_references()
            self._retire_completed()
            self._overload.check(self._reconstructor.sizer, under_way=self._first_pass.under_way)
            if not self._image_waiting():
                self._refresh_some()
        if self._archive.saved and self._frames.final:
            self._frames.acknowledge_final()

    # Weights

    def _use_other_weights(self) -> None:
        super()._use_other_weights()
        if self._weights.final_seen:
            for perspective in self._kept:
                perspective.abandon_pass()

    def _check(self, start: ScanStart) -> Check[Model]:
        limit_db = self._settings.refuse_below_db
        canary = self._canary(start)
        return partial(check_weights, scan=start, factory=self._factory, canary=canary, refuse_below_db=limit_db)

    def _canary(self, scan: ScanStart) -> Canary:
        """Return frames to try weights on: with a known reference where there is one, else the newest."""
        model = self._weights.model
        for perspective in reversed(self._kept):
            if model is not None and perspective.reference is not None and perspective.kept:
                frames = perspective.some_frames(CANARY_FRAMES)
                prediction = self._reconstructor.predict(model, frames.diffraction)
                return Canary(frames.diffraction, Known(frames.position_px, perspective.reference, prediction))
        newest = self._frames.newest
        return blank_canary(scan) if newest is None else Canary(newest.head(CANARY_FRAMES).diffraction)

    # Imaging

    def _handle_references(self) -> None:
        if self._frames.start is None:
            return
        while self._frames.new_references:
            perspective = self._frames.new_references.pop(0)
            self._reporter.report_reference(perspective, pixel_size_m=self._frames.start.object_pixel_size_m)
            if perspective.released and perspective.complete and perspective not in self._let_go_early:
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
        """Keep the frames of the newest perspectives only, as far as there is memory for them."""
        if perspective.released:
            return
        if perspective not in self._kept:
            self._kept.append(perspective)
        while len(self._kept) > self._settings.keep:
            self._let_go(self._kept.popleft())
        while len(self._kept) > 1 and self._keeps_too_much():
            log.info("perspective %d is let go of: kept frames take more than edge.keep_bytes", self._kept[0].index)
            self._let_go(self._kept.popleft())
        if self._keeps_too_much():
            newest = self._kept[-1]
            newest.keep_no_frames()
            self._links.warn(
                f"perspective {newest.index}: its frames take more than edge.keep_bytes = {self._settings.keep_bytes}; "
                "they are imaged once, and not again with newer weights; raise it where there is memory"
            )

    def _keeps_too_much(self) -> bool:
        return sum(one.kept_bytes for one in self._kept) > self._settings.keep_bytes

    def _let_go(self, perspective: Perspective) -> None:
        """Keep no frames of a perspective, and write it unless some are still to be imaged."""
        perspective.release_frames()
        if perspective.complete:
            self._retire(perspective)
            self._let_go_unscored()
        else:
            self._let_go_early.append(perspective)

    def _retire_completed(self) -> None:
        """Write those whose end, or whose last frames, came after they were let go of."""
        for perspective in [one for one in self._let_go_early if one.complete]:
            self._let_go_early.remove(perspective)
            self._let_go(perspective)

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
        block = perspective.next_to_refresh(self._reconstructor.sizer.frames)
        again = self._reconstructor.reconstruct(model, block, perspective.illumination)
        perspective.stitch_refreshed(again.block, again.patches, again.version, again.residuals)
        self._counter.refreshed += len(again.block)
        ended_s = time.monotonic()
        self._refresh_from_s = ended_s + (ended_s - began_s) * (1 / self._settings.refresh_share - 1)

    # Reporting

    def _report_counts(self, *, final: bool = False) -> None:
        self._counter.waiting, self._counter.put_off = self._unimaged(), self._overload.put_off
        self._reporter.report_counts(final=final)

    def _report(self) -> None:
        self._report_counts()
        if self._frames.start is None or self._weights.model is None:
            return
        pixel_size_m = self._frames.start.object_pixel_size_m
        for perspective in self._kept:
            self._reporter.report_perspective(perspective, self._weights.model, pixel_size_m=pixel_size_m)
            if self._frames.start.wants_images:
                self._send_image(perspective)

    def _send_image(self, perspective: Perspective) -> None:
        """Send what was made of a perspective on arrival, once, as soon as that is all of it."""
        mosaic = perspective.rendering(MosaicKind.FIRST_PASS).whole
        if perspective.image_sent or not perspective.complete or not mosaic.frames:
            return
        perspective.image_sent = True
        image = mosaic.image()
        arrays = {"amplitude": image.amplitude.astype(np.float16), "phase": image.phase.astype(np.float16)}
        self._links.inbox.send_image(FirstPassImage(perspective.index, image.origin_px), arrays)

    def _retire(self, perspective: Perspective, *, finished: bool = False) -> None:
        """Report and write a perspective as it is now; forget it unless its reference is still to come.

        `finished`: everything is, so that what is kept does not change either.
        """
        if self._frames.start is None or self._weights.model is None:
            return
        pixel_size_m = self._frames.start.object_pixel_size_m
        self._reporter.report_perspective(perspective, self._weights.model, pixel_size_m=pixel_size_m, at_once=True)
        closes = perspective.reference is not None or not perspective.reference_due
        final = closes and perspective.complete and (perspective.released or finished)
        self._archive.write(self._images(perspective, pixel_size_m, final=final))
        self._reporter.forget(perspective)
        if closes:
            self._frames.close_section(perspective)

    def _images(self, perspective: Perspective, pixel_size_m: tuple[float, float], *, final: bool) -> PerspectiveImages:
        return PerspectiveImages(
            perspective=perspective.index,
            angle_deg=perspective.angle_deg,
            pixel_size_m=pixel_size_m,
            min_coverage=self._settings.min_coverage,
            images={kind: perspective.rendering(kind).whole.image() for kind in STITCHED},
            model_versions={kind: sorted(perspective.rendering(kind).versions) for kind in STITCHED},
            reference=perspective.reference,
            residuals={
                kind: perspective.rendering(kind).residuals.map(perspective.rendering(kind).whole.covered)
                for kind in STITCHED
                if perspective.rendering(kind).residuals.scored
            },
            closed_frames=perspective.received if final else None,
        )

    def _let_go_unscored(self) -> None:
        """Stop waiting for references that have been awaited for very long."""
        unscored = [one for one in self._frames.sections.values() if one.released and one.complete]
        for perspective in unscored[: -self._settings.keep_unscored]:
            log.info("perspective %d: no reference came, its image stays without scores", perspective.index)
            perspective.reference_due = False
            self._retire(perspective)

    def _end(self, *, finished: bool) -> None:
        model = self._weights.model
        without_reference = [one.index for one in self._frames.sections.values() if one.reference is None]
        self._retire_completed()
        unwritten = [] if model is None else [one for one in self._frames.sections.values() if _has_news(one)]
        if not finished and self._frames.start is not None:
            # Scores take their time, and whoever ends the run may not leave it: first what holds everything.
            for perspective in unwritten:
                pixel_size_m = self._frames.start.object_pixel_size_m
                self._archive.write(self._images(perspective, pixel_size_m, final=False))
        for perspective in unwritten:
            if self._weights.final_seen and model is not None:
                self._reporter.report_held_out(perspective, model, kept=self._kept)
            # a trainer that was only stopped goes on, and its newer weights are for what was kept
            self._retire(perspective, finished=finished and not self._weights.stopped_seen)
        self._report_counts(final=True)
        unscored = f"; perspectives without a reference: {len(without_reference)}" if without_reference else ""
        done = f"{self._counter.inferred} frames imaged, {self._counter.refreshed} times again{unscored}"
        undrawn = self._archive.undrawn
        drawing = f"; perspectives whose pictures are still being drawn: {undrawn}" if undrawn else ""
        self._links.report_status(PartState.DONE, done + drawing)
        if finished:
            self._archive.wait()
            if drawing:
                self._links.report_status(PartState.DONE, done)
            self._frames.acknowledge_all()


def _has_news(perspective: Perspective) -> bool:
    """Whether there is more of an image than what was written when its frames were let go."""
    written = perspective.released and perspective.complete
    return not written and bool(perspective.rendering(MosaicKind.FIRST_PASS).whole.frames)
