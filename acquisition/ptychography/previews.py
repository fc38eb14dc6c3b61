"""Previews of a perspective that a detector is still sending."""

from __future__ import annotations

import logging
import time

from ptychoflow.acquisition.ptychography.acquired import TakenFrames
from ptychoflow.acquisition.retrieval.engines import RETRIEVING
from ptychoflow.acquisition.retrieval.preview import Preview
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker import GroundTruthWorker
from ptychoflow.acquisition.scan import OpenEndedPerspective, Perspective
from ptychoflow.streaming.events import MosaicImage, MosaicKind
from ptychoflow.streaming.telemetry import TelemetrySender

log = logging.getLogger(__name__)

LEAST_FRAMES = 16
GROWTH = 1.1
"""A preview is made again of so many times the frames."""
PERIOD_S = 1.0


class Previews:
    """Has the newest frames looked at whenever the ground-truth worker has nothing else to do.

    Nothing waits: what is new when a preview is done is in the next one.
    """

    def __init__(self, settings: RetrievalSettings, worker: GroundTruthWorker, telemetry: TelemetrySender) -> None:
        self._wanted = settings.source in RETRIEVING and settings.preview_epochs > 0
        self._settings, self._worker, self._telemetry = settings, worker, telemetry
        self._taken: TakenFrames | None = None
        self._pixel_size_m = (0.0, 0.0)
        """Of the object in the perspective that was begun last."""
        self._due_frames = 0.0
        self._due_s = 0.0

    def begin(self, perspective: OpenEndedPerspective, taken: TakenFrames) -> None:
        """Make previews of a perspective from now on, unless its frames are all at hand."""
        live = not isinstance(perspective, Perspective)
        self._taken = taken if live and self._wanted else None
        self._due_frames, self._due_s = LEAST_FRAMES, 0.0
        self._pixel_size_m = perspective.geometry.object_pixel_size_m

    def end(self) -> None:
        """Make no more."""
        self._taken = None

    def attend(self) -> None:
        """Have a preview made if it is time."""
        taken = self._taken
        if taken is None or taken.usable < self._due_frames or time.monotonic() < self._due_s or not self._worker.idle:
            return
        self._due_frames, self._due_s = GROWTH * taken.usable, time.monotonic() + PERIOD_S
        try:
            self._worker.preview(taken.perspective_acquired().job(self._settings))
        except OSError as error:
            log.warning("no preview: %s", error)

    def show(self, preview: Preview) -> None:
        """Send a preview to those who look on."""
        event = MosaicImage(
            preview.perspective, MosaicKind.PREVIEW, 0, preview.origin_px, self._pixel_size_m, frames=preview.frames
        )
        self._telemetry.send(event, {"amplitude": preview.amplitude, "phase": preview.phase})
