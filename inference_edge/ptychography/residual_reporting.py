"""What the edge tells of the score without ground truth: figures, a map, and what they say about the error."""

from __future__ import annotations

from collections.abc import Callable

from ptychoflow.inference_edge.counter import Cadence
from ptychoflow.inference_edge.ptychography.calibration import Calibration, Calibrator
from ptychoflow.inference_edge.ptychography.frame_residuals import WINDOW
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.stitching.quality import compare
from ptychoflow.streaming.events import MosaicKind, ResidualCalibrated, ResidualMapped, ResidualScores
from ptychoflow.streaming.messages import FirstPassResidual
from ptychoflow.streaming.telemetry import TelemetrySender

TOLD_EVERY_FRAMES = WINDOW // 4


class ResidualReporter:
    """Sends residuals as they come; for the arguments see `Reporter`.

    Args:
        on_residual: told how well the newest frames of a first pass are explained, every few frames.
    """

    def __init__(
        self, telemetry: TelemetrySender, settings: EdgeSettings, *, on_residual: Callable[[FirstPassResidual], None]
    ) -> None:
        self._telemetry, self._on_residual = telemetry, on_residual
        self._min_coverage = settings.min_coverage
        self._figures = Cadence(settings.report_period_s)
        self._maps = Cadence(settings.report_period_s)
        self._calibrator = Calibrator()
        self._told: dict[int, int] = {}

    def report(self, perspective: Perspective, kind: MosaicKind, *, at_once: bool) -> None:
        """Report one image's residuals as far as there are new ones."""
        rendering = perspective.rendering(kind)
        residuals = rendering.residuals
        if not residuals.scored:
            return
        if kind is MosaicKind.FIRST_PASS:
            self._tell_newest(perspective)
        calibration = self._calibrator.current
        key, state = (perspective.index, kind), (residuals.scored, max(rendering.versions))
        if self._figures.due(key, (*state, calibration), at_once=at_once):
            usable = calibration is not None and calibration.usable
            self._telemetry.send(
                ResidualScores(
                    perspective=perspective.index,
                    kind=kind,
                    frames=rendering.whole.frames,
                    scored=residuals.scored,
                    residual=residuals.middle,
                    newest=residuals.newest,
                    error_rad=calibration.error_rad(residuals.values) if calibration and usable else None,
                )
            )
        if self._maps.due(key, state, at_once=at_once):
            shown = residuals.map(rendering.whole.covered)
            event = ResidualMapped(perspective.index, kind, shown.origin_px, shown.cell_px)
            self._telemetry.send(event, {"residual": shown.values})

    def learn(self, perspective: Perspective, kind: MosaicKind) -> None:
        """Learn from an image that is whole, and has a reference."""
        rendering = perspective.rendering(kind)
        is_first_pass = rendering is perspective.rendering(MosaicKind.FIRST_PASS)
        if perspective.reference is None or not rendering.residuals.scored:
            return
        if kind is MosaicKind.REFRESHED and is_first_pass:
            return  # nothing was imaged again yet: the same frames would count twice
        comparison = compare(rendering.whole.image(), perspective.reference, min_coverage=self._min_coverage)
        if comparison is None:
            return
        self._calibrator.learn((perspective.index, kind), rendering.residuals, comparison)
        if (calibration := self._calibrator.current) is not None:
            self._telemetry.send(_event(calibration))

    def forget(self, perspective: int) -> None:
        """Let go of what is held of a perspective that no longer changes."""
        self._told.pop(perspective, None)

    def _tell_newest(self, perspective: Perspective) -> None:
        rendering = perspective.rendering(MosaicKind.FIRST_PASS)
        scored, newest = rendering.residuals.scored, rendering.residuals.newest
        if newest is not None and scored >= self._told.get(perspective.index, 0) + TOLD_EVERY_FRAMES:
            self._told[perspective.index] = scored
            self._on_residual(FirstPassResidual(perspective.index, rendering.whole.frames, newest))


def _event(calibration: Calibration) -> ResidualCalibrated:
    return ResidualCalibrated(
        frames=calibration.frames,
        images=calibration.images,
        correlation=calibration.correlation,
        spread=calibration.spread,
        usable=calibration.usable,
    )
