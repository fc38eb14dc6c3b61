"""One pass over a scan: frames go out at once, samples as their ground truth comes.

Data moves one way: scan, publisher to the edge; scan, ground-truth worker, publisher to the ranks. Everything runs
in one thread that never waits without pumping the publisher.
"""

from __future__ import annotations

import io
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.frame_check import UNUSABLE, chosen_as_streamed, ranges_in_words, usable
from ptychoflow.acquisition.ptychography.acquired import AcquiredPerspective, TakenFrames
from ptychoflow.acquisition.ptychography.head_start import HeadStart, probe_message
from ptychoflow.acquisition.ptychography.previews import Previews
from ptychoflow.acquisition.ptychography.regime import RegimeControl
from ptychoflow.acquisition.ptychography.scan_view import ScanView
from ptychoflow.acquisition.ptychography.warm_start import object_to_start_from
from ptychoflow.acquisition.publishing.journal import Journal
from ptychoflow.acquisition.publishing.loop import IDLE_S, AcquisitionLoop, Stopped
from ptychoflow.acquisition.publishing.streamer import SourceStreamer
from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth
from ptychoflow.acquisition.retrieval.preview import Preview
from ptychoflow.acquisition.retrieval.settings import AutoVoid, RetrievalSettings
from ptychoflow.acquisition.retrieval.void import distribution_in_words, squared_phase_rad2
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult, GroundTruthWorker
from ptychoflow.acquisition.roles import Roles
from ptychoflow.acquisition.scan import Ending, FrameBatch, OpenEndedPerspective, OpenEndedScan
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    GroundTruthReady,
    GroundTruthSkipped,
    PartState,
    PartStatus,
    RegimeChanged,
    RegimeRules,
    ScanInfo,
    Unlabelled,
)
from ptychoflow.streaming.frame_memory import PART_BYTES, frames_within
from ptychoflow.streaming.messages import Frames, NoReference, PerspectiveEnd, Samples, ScanStart
from ptychoflow.streaming.settings import RunContext

log = logging.getLogger(__name__)

Come = TypeVar("Come")
Kept = TypeVar("Kept")

COUNT_BYTES, FLOAT_BYTES = 2, 4
"""Per pixel: of frames as they travel, and as some sources bring them."""
DISK_RETRY_S = 1.0
ENDINGS = {
    Ending.ABORTED: "was broken off",
    Ending.NEXT_SERIES: "ended without a word, when the next one began,",
    Ending.STALLED: "stalled: nothing more came",
}
SAME_PIXEL = 1e-3
"""Relative difference up to which perspectives have pixels of one size."""
MOSTLY_VOID = 0.5
"""If more of a perspective's frames are void than this, people are told."""


class ScanStreamer(SourceStreamer):
    """Streams a scan: frames go out at once, samples as their ground truth comes.

    A perspective whose ground truth fails is not lost: its frames are imaged, counted as unlabelled, and said so.
    Ground truth that is known from before the run was resumed is not computed again.

    Args:
        scan: the source.
        settings: how it is taken and published.
        retrieval: where ground truth comes from.
        run: name and seed.
        loop: sends the stream.
        worker: computes ground truth.
        journal: keeps what need not be done again.
        recorder: writes the frames to a file; None to write none.
    """

    ACQUIRED = "frames acquired"

    def __init__(
        self,
        scan: OpenEndedScan,
        settings: AcquisitionSettings,
        retrieval: RetrievalSettings,
        *,
        run: RunContext,
        loop: AcquisitionLoop,
        worker: GroundTruthWorker,
        journal: Journal,
        recorder: Recorder | None,
    ) -> None:
        super().__init__(settings, loop=loop, journal=journal)
        self._scan, self._settings, self._retrieval, self._run = scan, settings, retrieval, run
        self._worker, self._recorder = worker, recorder
        self._view = ScanView(loop.telemetry)
        self._previews = Previews(retrieval, worker, loop.telemetry)
        self._regime = RegimeControl(settings.regime)
        self._perspective = 0
        """The one that is being acquired."""
        self._awaiting: dict[int, AcquiredPerspective] = {}
        """Perspectives whose ground truth is to come."""
        self._open: dict[int, PerspectiveEnd] = {}
        """Perspectives whose end the ranks have not been told, in order of acquisition."""
        self._said: set[str] = set()
        """Kinds of notes that people have been told."""
        self._pixel_size_m = (0.0, 0.0)
        """Of the object, as it was announced."""
        self._void_told = False
        wanted = settings.trainer and journal.acquired == 0
        self._head_start = HeadStart(self._publisher, frames=settings.head_start_frames if wanted else 0)
        self.on_acquired: Callable[[AcquiredPerspective], None] | None = None
        """Told of every perspective when all its frames have come, before they are let go of."""
        loop.attendants.append(self._attend)

    def _stream_all(self) -> None:
        try:
            self._stream_scan()
        except Stopped:
            if self._recorder is not None:
                self._recorder.stopped = True
            raise
        self._await_ground_truth()
        self._tell_nothing_learnt()

    def _stream_scan(self) -> None:
        announced = False
        self._loop.send(PartStatus(PartState.RUNNING, f"waiting for the first frames of {self._scan.name}"))
        for perspective in self._working_meanwhile(self._scan.arriving()):
            if not announced:
                self._announce(perspective)
                announced = True
            self._acquire(perspective)
            self._perspective = perspective.index + 1
        if not announced:
            raise UserError(f"{self._scan.name}: the source ended, and there was no perspective in it")

    def _working_meanwhile(self, source: Iterator[Come | None]) -> Iterator[Come]:
        """Yield what comes, and keep the stream going while nothing does."""
        for come in source:
            if come is None:
                self._loop.run_for(IDLE_S)
            else:
                yield come

    def _announce(self, first: OpenEndedPerspective) -> None:
        geometry = first.geometry
        start = ScanStart(
            run=self._run.name,
            perspectives=self._scan.perspectives,
            frame_shape_px=geometry.frame_shape_px,
            target_shape_px=self._target_shape_px(first),
            object_pixel_size_m=geometry.object_pixel_size_m,
            energy_eV=geometry.energy_eV,
            detector_distance_m=geometry.detector_distance_m,
            detector_pixel_size_m=geometry.detector_pixel_size_m,
            wants_images=self._retrieval.warm_start,
        )
        self._pixel_size_m = start.object_pixel_size_m
        self._post_start(start)
        info = ScanInfo(
            source=self._scan.name,
            perspectives=start.perspectives,
            frames_expected=self._scan.frames,
            frame_shape_px=start.frame_shape_px,
            target_shape_px=start.target_shape_px,
            object_pixel_size_m=start.object_pixel_size_m,
            energy_eV=start.energy_eV,
            ground_truth=self._retrieval.source,
            notes=self._scan.notes,
        )
        self._loop.send(info)
        self._keep_probe(first)
        self._said.update(_kind(note) for note in first.notes)
        rules = self._settings.regime
        if rules.automatic:
            self._loop.send(RegimeRules(rules.psnr_db, rules.ssim))
        if acquired := self._journal.acquired:
            self._loop.send(RegimeChanged(self._regime.regime, acquired, "the run was resumed"))
        self._loop.begin("scanning")

    def _keep_probe(self, first: OpenEndedPerspective) -> None:
        """Keep the probe, so that another run can start from it."""
        if first.probe is not None:
            probe = io.BytesIO()
            np.save(probe, first.probe, allow_pickle=False)
            self._record(lambda: write_durably(self._run.folder.probe, probe.getvalue()))

    def _target_shape_px(self, perspective: OpenEndedPerspective) -> tuple[int, int]:
        return self._retrieval.target_shape_for(perspective.geometry.frame_shape_px)

    def _acquire(self, perspective: OpenEndedPerspective) -> None:
        """Take one perspective's frames, publish them to the edge, and ask for their ground truth."""
        self._perspective = perspective.index
        log.info("perspective %d at %.2f°", perspective.index, perspective.angle_deg)
        for note in [*perspective.notes, *self._other_pixel_note(perspective)]:
            if _kind(note) not in self._said:
                self._said.add(_kind(note))
                self._tell(perspective, f": {note}")
        roles = Roles(
            self._settings.roles,
            perspective=perspective.index,
            perspectives=self._scan.perspectives,
            positions_px=perspective.known_positions_px,
            extent_px=perspective.extent_px,
            target_shape_px=self._target_shape_px(perspective),
            seed=self._run.seed,
        )
        if roles.note:
            self._tell(perspective, f": {roles.note}")
        if self._recorder is not None:
            self._recorder.start_perspective(perspective)
        self._view.start(perspective)
        self._publish_probe(perspective)
        self._head_start.begin(perspective)
        again = self._journal.was_acquired(perspective.index)
        taken = TakenFrames(perspective, self._when_disk_allows(self._worker.folder_of_job))
        if self._regime.would_want(perspective.index) and self._journal.result(perspective.index) is None:
            self._previews.begin(perspective, taken)
        batch_frames = self._batch_frames(perspective.geometry.frame_shape_px)
        for batch in self._working_meanwhile(perspective.batches(batch_frames)):
            self._wait_for_turn(len(batch), again=again)
            self._publish_frames(perspective, batch, roles.assign(batch.indices, batch.positions_px), taken)
        self._previews.end()
        self._view.end(perspective)
        self._tell_ending(perspective, taken)
        acquired = taken.perspective_acquired()
        if self.on_acquired is not None:
            self.on_acquired(acquired)
        self._publisher.post_to_edge(acquired.end())
        self._record(lambda: self._journal.mark_acquired(perspective.index))
        self._request_ground_truth(acquired)

    def _other_pixel_note(self, perspective: OpenEndedPerspective) -> list[str]:
        """Return a note if lengths in the images of a perspective, for which the announced pixel counts, are wrong."""
        own_m, announced_m = perspective.geometry.object_pixel_size_m, self._pixel_size_m
        if np.allclose(own_m, announced_m, rtol=SAME_PIXEL, atol=0.0):
            return []
        own, announced = (" × ".join(f"{length_m * 1e9:.4g}" for length_m in pair) for pair in (own_m, announced_m))
        return [
            f"Object pixels are {own} nm, not {announced} nm as in the first perspective: its energy, distance or "
            "detector is another. Images show and keep the first one's; for lengths that are right, make it a run of "
            "its own"
        ]

    def _publish_probe(self, perspective: OpenEndedPerspective) -> None:
        """Tell the edge what lights the object, as far as the source does."""
        if perspective.probe is not None:
            self._publisher.post_to_edge(*probe_message(perspective, perspective.probe))

    def _tell(self, perspective: OpenEndedPerspective, text: str) -> None:
        """Tell something of a perspective, unless an earlier process of the run acquired it and told that."""
        if not self._journal.was_acquired(perspective.index):
            self._loop.warn(f"perspective {perspective.index}{text}")

    def _tell_ending(self, perspective: OpenEndedPerspective, taken: TakenFrames) -> None:
        if perspective.ending is not Ending.COMPLETE:
            why = ENDINGS[perspective.ending]
            self._tell(perspective, f" {why} after {taken.acquired} frames")

    def _request_ground_truth(self, acquired: AcquiredPerspective) -> None:
        """Ask for ground truth, unless its outcome is known from before the run was resumed or the regime spares it."""
        index = acquired.perspective.index
        wanted = self._regime.wants_ground_truth(index) or acquired.is_judged
        known = self._journal.result(index)
        if known is not None:
            self._awaiting[index] = acquired
        elif wanted and not self._journal.is_skipped(index):
            self._submit_job(acquired)
            self._awaiting[index] = acquired
        self._open[index] = acquired.end()
        if index not in self._worker.pending:
            acquired.forget_frames()
        if known is not None:
            self._publish_ground_truth(known)
        elif index not in self._awaiting:
            self._skip_ground_truth(acquired)

    def _publish_frames(
        self, perspective: OpenEndedPerspective, batch: FrameBatch, roles: npt.NDArray[np.uint8], taken: TakenFrames
    ) -> None:
        """Publish a batch, and keep of it what can be used."""
        for note in batch.notes:
            self._tell(perspective, f": {note}")
        if self._recorder is not None:
            self._recorder.append(batch)
        good = usable(batch.frames)
        self._ledger.count_frames(roles, good)
        if not good.all():
            numbers = ranges_in_words(batch.indices[~good].tolist())
            self._tell(perspective, f": {int((~good).sum())} frames {UNUSABLE} are set aside: {numbers}")
        arrays: Arrays = {
            "index": batch.indices[good],
            "role": roles[good],
            "position_px": batch.positions_px[good],
            "diffraction": chosen_as_streamed(batch.frames, good),
        }
        acquired_at_s = time.time() if batch.acquired_at_s is None else batch.acquired_at_s
        self._publisher.post_to_edge(Frames(perspective.index, perspective.angle_deg, acquired_at_s), arrays)
        self._head_start.send(arrays)
        self._view.show(perspective, batch)
        self._when_disk_allows(lambda: taken.add(arrays, acquired=len(batch)))

    def _batch_frames(self, frame_shape_px: tuple[int, int]) -> int:
        """Return how many frames go together: fewer of large ones."""
        wanted = self._settings.frames_per_message(COUNT_BYTES * math.prod(frame_shape_px))
        return min(wanted, frames_within(PART_BYTES, frame_shape_px, FLOAT_BYTES))

    def _submit_job(self, acquired: AcquiredPerspective) -> None:
        self._when_disk_allows(lambda: self._worker.submit(acquired.job(self._retrieval)))

    def _when_disk_allows(self, keep: Callable[[], Kept]) -> Kept:
        """Write something to disk; hold the scan while the disk is full."""
        warned = False
        while True:
            try:
                return keep()
            except OSError as error:
                if not warned:
                    self._loop.warn(f"acquisition waits: frames cannot be kept for phase retrieval ({error.strerror})")
                warned = True
                self._loop.run_for(DISK_RETRY_S)

    def _publish_ground_truth(self, result: GroundTruthResult) -> None:
        """Send a perspective's reference image to the edge and its samples to the ranks."""
        acquired = self._awaiting.pop(result.perspective)
        self._head_start.end()
        if result.ground_truth is None:
            because = Unlabelled.WORKER_LOST if result.worker_lost else Unlabelled.RETRIEVAL_FAILED
            self._ledger.count_unlabelled(int(acquired.learned_from.sum()), because)
            self._publisher.post_to_edge(NoReference(result.perspective))
            self._regime.ground_truth_failed()
            self._loop.warn(f"no ground truth for perspective {result.perspective}: {result.error}")
        else:
            self._publish_reference(acquired, result.ground_truth)
            self._publish_samples(acquired, result.ground_truth)
        self._end_perspectives()

    def _skip_ground_truth(self, acquired: AcquiredPerspective) -> None:
        """Set the frames of a perspective aside that the regime spares the phase retrieval."""
        self._record(lambda: self._journal.mark_skipped(acquired.perspective.index))
        self._ledger.count_unlabelled(int(acquired.learned_from.sum()), self._regime.spares_because)
        self._publisher.post_to_edge(NoReference(acquired.perspective.index))
        self._loop.send(GroundTruthSkipped(acquired.perspective.index))
        self._end_perspectives()

    def _end_perspectives(self) -> None:
        """Tell the ranks the end of every perspective that is done with, in the order of acquisition."""
        while self._open and (first := next(iter(self._open))) not in self._awaiting:
            self._publisher.post_to_ranks(self._open.pop(first))

    def _attend(self) -> None:
        """Take in ground truth that has come, and what concerns the regime."""
        come = self._worker.poll()
        if isinstance(come, Preview):
            self._previews.show(come)
        elif come is not None:
            self._record(lambda: self._journal.record_result(come))
            self._publish_ground_truth(come)
        self._offer_starts()
        self._review_regime()
        self._previews.attend()

    def _offer_starts(self) -> None:
        """Have phase retrieval start from what the edge has made of the frames."""
        while self._publisher.images:
            image, arrays = self._publisher.images.popleft()
            start = object_to_start_from(image, arrays) if self._retrieval.warm_start else None
            if start is None:
                log.warning("the edge's image of perspective %d is none, and is left out", image.perspective)
                continue
            try:
                self._worker.offer_start(image.perspective, start)
            except OSError as error:
                log.warning("perspective %d: phase retrieval starts from nothing: %s", image.perspective, error)

    def _review_regime(self) -> None:
        """Heed what people chose and what the edge scored."""
        self._act_on(self._regime.set_chosen(self._loop.control.regime))
        while self._publisher.scores:
            self._act_on(self._regime.judge(self._publisher.scores.popleft()))

    def _act_on(self, change: str | None) -> None:
        """Say why the regime changed, and withdraw phase retrieval that has not begun and that it does without."""
        if change is None:
            return
        withdrawn = []
        if pending := self._worker.pending:
            waiting = [perspective for perspective in pending[1:] if not self._awaiting[perspective].is_judged]
            withdrawn = self._regime.reconsider(under_way=pending[0], waiting=waiting)
        first = min(withdrawn, default=self._perspective)
        self._loop.send(RegimeChanged(self._regime.regime, first, change, self._ledger.acquired))
        for perspective in withdrawn:
            self._worker.withdraw(perspective)
            self._skip_ground_truth(self._awaiting.pop(perspective))

    def _publish_reference(self, acquired: AcquiredPerspective, truth: GroundTruth) -> None:
        self._loop.send(
            GroundTruthReady(
                acquired.perspective.index, truth.source, truth.seconds, len(acquired.frames), truth.epochs
            )
        )
        self._publisher.post_to_edge(*acquired.reference(truth))

    def _publish_samples(self, acquired: AcquiredPerspective, truth: GroundTruth) -> None:
        if not self._settings.trainer:
            self._ledger.count_unlabelled(int(acquired.learned_from.sum()), Unlabelled.NO_TRAINER)
            return
        self._ledger.count_labels(truth.void[acquired.learned_from])
        self._tell_mostly_void(acquired, truth)
        batch_frames = self._batch_frames(acquired.perspective.geometry.frame_shape_px)
        for batch in acquired.sample_batches(truth, batch_frames=batch_frames):
            self._publisher.post_samples(Samples(acquired.perspective.index), batch)

    def _void_threshold(self) -> str:
        threshold = self._retrieval.void_threshold
        said = threshold.value if isinstance(threshold, AutoVoid) else f"{threshold:g} rad²"
        return f"retrieval.void_threshold = {said}"

    def _tell_mostly_void(self, acquired: AcquiredPerspective, truth: GroundTruth) -> None:
        """Say so, once and early, when most frames are set aside as void."""
        void = truth.void[acquired.learned_from]
        if self._void_told or len(void) == 0 or void.mean() <= MOSTLY_VOID:
            return
        self._void_told = True
        spread = distribution_in_words(squared_phase_rad2(truth.phase[acquired.learned_from]))
        self._loop.warn(
            f"perspective {acquired.perspective.index}: {int(void.sum())} of {len(void)} frames are set aside as void "
            f"({self._void_threshold()}): {spread}; for a weak phase object set it lower, or to {AutoVoid.AUTO}"
        )

    def _await_ground_truth(self) -> None:
        if self._awaiting:
            self._loop.send(PartStatus(PartState.RUNNING, "waiting for ground truth"))
        self._loop.run_until(lambda: not self._awaiting)

    def _tell_nothing_learnt(self) -> None:
        """Say why if no frame became a sample although some should have."""
        if self._settings.trainer and (why := self._ledger.why_no_sample()):
            hint = (
                f"; void is a mean squared phase below {self._void_threshold()}: for a weak phase object set it lower"
                if self._ledger.void
                else ""
            )
            self._loop.warn(f"none of the {self._ledger.acquired} frames can be learnt from: {why}{hint}")


def _kind(note: str) -> str:
    """Return a note without its figures: a hundred perspectives may each have their own."""
    return re.sub(r"[\d.,]+", "#", note)
