"""One pass over a scan: frames go out at once, samples as their ground truth comes.

Data moves one way: scan, publisher to the edge; scan, ground-truth worker, publisher to the ranks. Everything runs
in one thread that never waits without pumping the publisher.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.acquired import Acquired
from ptychoflow.acquisition.control import Control
from ptychoflow.acquisition.frame_check import as_streamed, usable
from ptychoflow.acquisition.ground_truth import GroundTruth, GroundTruthJob
from ptychoflow.acquisition.ledger import Ledger
from ptychoflow.acquisition.outcomes import Outcomes
from ptychoflow.acquisition.pacing import Pacer
from ptychoflow.acquisition.pump import Pump, Stopped
from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.regime import RegimeControl
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult, GroundTruthWorker
from ptychoflow.acquisition.roles import assign_roles
from ptychoflow.acquisition.scan import Perspective, Scan
from ptychoflow.acquisition.scan_view import ScanView
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.streaming.codec import Arrays
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
from ptychoflow.streaming.messages import Frames, NoReference, PerspectiveEnd, Samples, ScanStart
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import RunContext
from ptychoflow.streaming.telemetry import TelemetrySender

log = logging.getLogger(__name__)

DISK_RETRY_S = 1.0


@dataclass
class OnePass:
    """Acquires a scan from its first frame to its last.

    A perspective whose ground truth fails is not lost: its frames are imaged, counted as unlabelled, and said so.
    A run that is resumed passes over the whole scan again; receivers drop what they are done with, what was acquired
    before is read without pacing, and ground truth that is known is not computed again.
    """

    scan: Scan
    settings: AcquisitionSettings
    retrieval: RetrievalSettings
    run: RunContext
    publisher: Publisher
    worker: GroundTruthWorker
    outcomes: Outcomes
    recorder: Recorder | None
    telemetry: TelemetrySender
    control: Control
    stop: threading.Event
    ledger: Ledger = field(default_factory=Ledger, init=False)
    regime: RegimeControl = field(init=False)
    _perspective: int = field(default=0, init=False)
    """The one that is being acquired."""
    _awaiting: dict[int, Acquired] = field(default_factory=dict, init=False)
    """Perspectives whose ground truth is to come."""
    _open: dict[int, PerspectiveEnd] = field(default_factory=dict, init=False)
    """Perspectives whose end the ranks have not been told, in order of acquisition."""

    def __post_init__(self) -> None:
        self._pump = Pump(
            self.publisher,
            telemetry=self.telemetry,
            control=self.control,
            ledger=self.ledger,
            stop=self.stop,
            attend=self._attend,
        )
        self._view = ScanView(self.telemetry)
        self.regime = RegimeControl(self.settings.regime)

    def run_to_end(self) -> None:
        """Acquire everything and wait until every receiver has finished with it, or until `stop` is set."""
        try:
            self._announce()
            pacer = Pacer(self.settings.rate_hz)
            for perspective in self.scan:
                self._acquire(perspective, pacer)
            self._perspective = len(self.scan)
            self._await_ground_truth()
            self._pump.end_stream()
        except Stopped:
            self.ledger.count_rest_unlabelled()
            log.info("asked to stop: %d frames acquired", self.ledger.acquired)
        self._pump.send_counts()
        self._pump.send(PartStatus(PartState.DONE, f"{self.ledger.acquired} frames acquired"))

    def _announce(self) -> None:
        first = self.scan.perspective(0)
        geometry = first.geometry
        start = ScanStart(
            run=self.run.name,
            perspectives=len(self.scan),
            frame_shape_px=geometry.frame_shape_px,
            target_shape_px=self._target_shape_px(first),
            object_pixel_size_m=geometry.object_pixel_size_m,
            energy_eV=geometry.energy_eV,
            detector_distance_m=geometry.detector_distance_m,
            detector_pixel_size_m=geometry.detector_pixel_size_m,
        )
        self.publisher.post_to_edge(start)
        self.publisher.post_to_ranks(start)
        info = ScanInfo(
            source=self.scan.name,
            perspectives=start.perspectives,
            frames_expected=self.scan.frames,
            frame_shape_px=start.frame_shape_px,
            target_shape_px=start.target_shape_px,
            object_pixel_size_m=start.object_pixel_size_m,
            energy_eV=start.energy_eV,
            ground_truth=self.retrieval.source,
            notes=self.scan.notes,
        )
        self._pump.send(info)
        rules = self.settings.regime
        if rules.automatic:
            self._pump.send(RegimeRules(rules.psnr_db, rules.ssim))
        acquired = sum(self.outcomes.was_acquired(index) for index in range(len(self.scan)))
        if acquired:
            self._pump.send(RegimeChanged(self.regime.regime, acquired, "the run was resumed"))
        self._pump.send(PartStatus(PartState.RUNNING, "scanning"))

    def _target_shape_px(self, perspective: Perspective) -> tuple[int, int]:
        return self.retrieval.target_shape_for(perspective.geometry.frame_shape_px)

    def _acquire(self, perspective: Perspective, pacer: Pacer) -> None:
        """Take one perspective's frames, publish them to the edge, and ask for their ground truth."""
        self._perspective = perspective.index
        log.info("perspective %d: %d frames at %.2f°", perspective.index, len(perspective), perspective.angle_deg)
        roles = assign_roles(
            self.settings.roles,
            perspective.positions_px,
            perspective=perspective.index,
            perspectives=len(self.scan),
            target_shape_px=self._target_shape_px(perspective),
            seed=self.run.seed,
        )
        if self.recorder is not None:
            self.recorder.start_perspective(perspective)
        self._view.start(perspective)
        again = self.outcomes.was_acquired(perspective.index)
        kept = []
        for start in range(0, len(perspective), self.settings.batch_frames):
            stop = min(start + self.settings.batch_frames, len(perspective))
            self._pump.work_for(0.0 if again else pacer.wait_s(stop - start))
            self._pump.wait_while_paused()
            self._pump.wait_for_room()
            kept.append(self._take_batch(perspective, roles, start, stop))
        frames, indices = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        acquired = Acquired(perspective, frames, indices, roles[indices])
        self.publisher.post_to_edge(acquired.end())
        self._keep(lambda: self.outcomes.note_acquired(perspective.index))
        self._seek_ground_truth(acquired)

    def _seek_ground_truth(self, acquired: Acquired) -> None:
        """Ask for ground truth, unless its outcome is known from before the run was resumed or the regime spares it."""
        index = acquired.perspective.index
        wanted = self.regime.wants_ground_truth(index) or acquired.is_judged
        known = self.outcomes.result(index)
        if known is not None:
            self._awaiting[index] = acquired
        elif wanted and not self.outcomes.is_skipped(index):
            self._awaiting[index] = replace(acquired, frames=self._ask_for_ground_truth(acquired))
        self._open[index] = acquired.end()
        if known is not None:
            self._publish_ground_truth(known)
        elif index not in self._awaiting:
            self._skip_ground_truth(acquired)

    def _take_batch(
        self, perspective: Perspective, roles: npt.NDArray[np.uint8], start: int, stop: int
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.int32]]:
        """Publish frames start to stop; return those that can be used, with their indices."""
        stored = perspective.read(start, stop)
        if self.recorder is not None:
            self.recorder.append(stored, start=start)
        good = usable(stored)
        frames = as_streamed(stored[good])
        indices = np.arange(start, stop, dtype=np.int32)[good]
        self.ledger.count_frames(roles[start:stop], good)
        if not good.all():
            self._pump.warn(f"perspective {perspective.index}: {int((~good).sum())} frames hold NaN or negative counts")
        arrays: Arrays = {
            "index": indices,
            "role": roles[indices],
            "position_px": perspective.positions_px[indices],
            "diffraction": frames,
        }
        self.publisher.post_to_edge(Frames(perspective.index, perspective.angle_deg, time.time()), arrays)
        self._view.show(perspective, stop - 1, stored[-1])
        return frames, indices

    def _ask_for_ground_truth(self, acquired: Acquired) -> npt.NDArray[np.generic]:
        """Return the frames as they lie on disk until the ground truth comes: a scan need not fit into memory.

        Holds the scan while the disk is full.
        """
        perspective = acquired.perspective
        job = GroundTruthJob(
            perspective=perspective.index,
            frames=acquired.frames,
            positions_px=perspective.positions_px[acquired.indices],
            probe=perspective.probe,
            mask=perspective.mask,
            recorded=perspective.ground_truth,
            target_shape_px=self._target_shape_px(perspective),
        )
        warned = False
        while True:
            try:
                return self.worker.submit(job)
            except OSError as error:
                if not warned:
                    self._pump.warn(f"acquisition waits: frames cannot be kept for phase retrieval ({error.strerror})")
                warned = True
                self._pump.work_for(DISK_RETRY_S)

    def _keep(self, note: Callable[[], None]) -> None:
        try:
            note()
        except OSError as error:
            self._pump.warn(f"a resumed run would have to do this again, because it cannot be noted: {error}")

    def _publish_ground_truth(self, result: GroundTruthResult) -> None:
        """Send a perspective's reference image to the edge and its samples to the ranks."""
        acquired = self._awaiting.pop(result.perspective)
        if result.ground_truth is None:
            self.ledger.count_unlabelled(int(acquired.learned_from.sum()), Unlabelled.RETRIEVAL_FAILED)
            self.publisher.post_to_edge(NoReference(result.perspective))
            self.regime.ground_truth_failed()
            self._pump.warn(f"no ground truth for perspective {result.perspective}: {result.error}")
        else:
            self._publish_reference(acquired, result.ground_truth)
            self._publish_samples(acquired, result.ground_truth)
        self._end_perspectives()

    def _skip_ground_truth(self, acquired: Acquired) -> None:
        """Set the frames of a perspective aside that the regime spares the phase retrieval."""
        self._keep(lambda: self.outcomes.note_skipped(acquired.perspective.index))
        self.ledger.count_unlabelled(int(acquired.learned_from.sum()), Unlabelled.MONITORING)
        self.publisher.post_to_edge(NoReference(acquired.perspective.index))
        self._pump.send(GroundTruthSkipped(acquired.perspective.index))
        self._end_perspectives()

    def _end_perspectives(self) -> None:
        """Tell the ranks the end of every perspective that is done with, in the order of acquisition."""
        while self._open and (first := next(iter(self._open))) not in self._awaiting:
            self.publisher.post_to_ranks(self._open.pop(first))

    def _attend(self) -> None:
        """Take in ground truth that has come, and what concerns the regime."""
        if (result := self.worker.poll()) is not None:
            self._keep(lambda: self.outcomes.keep(result))
            self._publish_ground_truth(result)
        self._review_regime()

    def _review_regime(self) -> None:
        """Heed what people chose and what the edge scored."""
        self._act_on(self.regime.choose(self.control.regime))
        while self.publisher.scores:
            self._act_on(self.regime.heed(self.publisher.scores.popleft()))

    def _act_on(self, change: str | None) -> None:
        """Say why the regime changed, and withdraw phase retrieval that has not begun and that it does without."""
        if change is None:
            return
        withdrawn = []
        if pending := self.worker.pending:
            waiting = [perspective for perspective in pending[1:] if not self._awaiting[perspective].is_judged]
            withdrawn = self.regime.reconsider(under_way=pending[0], waiting=waiting)
        first = min(withdrawn, default=self._perspective)
        self._pump.send(RegimeChanged(self.regime.regime, first, change))
        for perspective in withdrawn:
            self.worker.withdraw(perspective)
            self._skip_ground_truth(self._awaiting.pop(perspective))

    def _publish_reference(self, acquired: Acquired, truth: GroundTruth) -> None:
        self._pump.send(GroundTruthReady(acquired.perspective.index, truth.source, truth.seconds, len(acquired.frames)))
        self.publisher.post_to_edge(*acquired.reference(truth))

    def _publish_samples(self, acquired: Acquired, truth: GroundTruth) -> None:
        if not self.settings.trainer:
            self.ledger.count_unlabelled(int(acquired.learned_from.sum()), Unlabelled.NO_TRAINER)
            return
        self.ledger.count_labels(truth.void[acquired.learned_from])
        for batch in acquired.sample_batches(truth, batch_frames=self.settings.batch_frames):
            self.publisher.post_samples(Samples(acquired.perspective.index), batch)

    def _await_ground_truth(self) -> None:
        if self._awaiting:
            self._pump.send(PartStatus(PartState.RUNNING, "waiting for ground truth"))
        self._pump.work_until(lambda: not self._awaiting)
