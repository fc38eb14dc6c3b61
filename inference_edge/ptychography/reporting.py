"""What the edge tells the rest of the run: counts and rates, images and scores, none of them too often."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ptychoflow.inference_edge.counter import Cadence, EdgeCounter
from ptychoflow.inference_edge.ptychography.model import Model
from ptychoflow.inference_edge.ptychography.mosaic_feed import MosaicFeed
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.ptychography.residual_reporting import ResidualReporter
from ptychoflow.inference_edge.ptychography.scores import Scorer
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.events import MosaicImage, MosaicKind
from ptychoflow.streaming.messages import FirstPassResidual, FirstPassScore
from ptychoflow.streaming.telemetry import TelemetrySender

STITCHED = (MosaicKind.FIRST_PASS, MosaicKind.REFRESHED)


class Reporter:
    """Sends counts, images and scores as telemetry, each when it changed and no more often than configured.

    Args:
        telemetry: where events go.
        settings: how often.
        on_first_pass: told once how good a whole perspective was on arrival.
        on_residual: told how well the newest frames are explained, every few frames.
    """

    def __init__(
        self,
        telemetry: TelemetrySender,
        settings: EdgeSettings,
        *,
        on_first_pass: Callable[[FirstPassScore], None],
        on_residual: Callable[[FirstPassResidual], None],
    ) -> None:
        self.counter = EdgeCounter()
        self._telemetry = telemetry
        self._on_first_pass = on_first_pass
        self._residuals = ResidualReporter(telemetry, settings, on_residual=on_residual)
        self._mosaics = MosaicFeed(telemetry, whole_period_s=settings.whole_image_period_s)
        self._counts = Cadence(settings.report_period_s)
        self._images = Cadence(settings.image_period_s)
        self._scores = Cadence(settings.score_period_s)
        self._scorer = Scorer(min_coverage=settings.min_coverage, patch_crop_px=settings.patch_crop_px)

    def report_counts(self, *, final: bool = False) -> None:
        """Report counts and rates, for the last time if they are `final`."""
        if self._counts.due("counts", (final, *self.counter.totals()), at_once=final):
            self._telemetry.send(self.counter.event(final=final))

    def report_perspective(
        self, perspective: Perspective, model: Model, *, pixel_size_m: tuple[float, float], at_once: bool = False
    ) -> None:
        """Report stitched images and their scores as far as they changed."""
        for kind in STITCHED:
            rendering = perspective.rendering(kind)
            if not rendering.whole.frames:
                continue
            key, state = (perspective.index, kind), rendering.state()
            if self._images.due(key, state, at_once=at_once):
                self._mosaics.send(perspective, kind, pixel_size_m=pixel_size_m, whole=at_once)
            self._residuals.report(perspective, kind, at_once=at_once)
            scored = state, perspective.references
            if perspective.reference is not None and self._scores.due(key, scored, at_once=at_once):
                self._send_scores(perspective, kind, model)

    def forget(self, perspective: Perspective) -> None:
        """Let go of what is held of a perspective that no longer changes."""
        self._mosaics.forget(perspective.index)
        self._scorer.forget(perspective.index)
        self._residuals.forget(perspective.index)

    def report_reference(self, perspective: Perspective, *, pixel_size_m: tuple[float, float]) -> None:
        """Report the reference image, once, when it came."""
        reference = perspective.reference
        if reference is None:
            return
        event = MosaicImage(perspective.index, MosaicKind.REFERENCE, 0, reference.origin_px, pixel_size_m)
        arrays = {"amplitude": reference.amplitude, "phase": reference.phase}
        self._telemetry.send(event, {name: array.astype(np.float32) for name, array in arrays.items()})

    def report_held_out(self, perspective: Perspective, model: Model, *, kept: Sequence[Perspective]) -> None:
        """Report the scores of the held-out frames, where there are any that `model` imaged last.

        `kept`: perspectives whose frames are kept.
        """
        if (scores := self._scorer.score_held_out(perspective, model, kept=kept)) is not None:
            self._telemetry.send(scores)

    def _send_scores(self, perspective: Perspective, kind: MosaicKind, model: Model) -> None:
        scores = self._scorer.score(perspective, kind, model)
        if scores is None:
            return
        self._telemetry.send(scores)
        if perspective.complete:
            self._residuals.learn(perspective, kind)
        if kind is MosaicKind.FIRST_PASS and perspective.complete:
            self._on_first_pass(
                FirstPassScore(
                    perspective=perspective.index,
                    psnr_db=scores.quality.psnr_db.phase,
                    ssim=scores.quality.ssim.phase,
                    constant_psnr_db=scores.constant.psnr_db.phase,
                    residual=perspective.rendering(kind).residuals.worst,
                )
            )
