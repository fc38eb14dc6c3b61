"""What the edge tells the rest of the run: counts and rates, images and scores, none of them too often."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable

import numpy as np

from ptychoflow.inference_edge.mosaic_feed import MosaicFeed
from ptychoflow.inference_edge.perspective import Perspective
from ptychoflow.inference_edge.scores import Scorer
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.weights import Model
from ptychoflow.streaming.events import EdgeCounts, MosaicImage, MosaicKind
from ptychoflow.streaming.messages import FirstPassScore
from ptychoflow.streaming.telemetry import TelemetrySender

RECENT_BATCHES = 4096
RATE_WINDOW_BATCHES = 256
RATE_MIN_SPAN_S = 0.5
"""Batches that were imaged in one go say nothing about a rate."""
STITCHED = (MosaicKind.FIRST_PASS, MosaicKind.REFRESHED)


class EdgeCounter:
    """Counts frames and keeps the times of recent batches."""

    def __init__(self) -> None:
        self.inferred = 0
        self.refreshed = 0
        self.duplicates = 0
        self.refused = 0
        self.unstitched = 0
        self.put_off = 0
        self.waiting = 0
        self._latencies: deque[tuple[float, int]] = deque(maxlen=RECENT_BATCHES)
        self._done: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW_BATCHES)

    def imaged(self, frames: int, *, acquired_at_s: float, now_s: float, in_turn: bool = True) -> None:
        """Count frames imaged for the first time at `now_s`; both times are those of `time.time()`."""
        self.inferred += frames
        if in_turn:
            self._latencies.append((now_s - acquired_at_s, frames))
        self._done.append((now_s, frames))

    def totals(self) -> tuple[int, ...]:
        """Return all counts."""
        return (
            self.inferred,
            self.refreshed,
            self.duplicates,
            self.refused,
            self.unstitched,
            self.put_off,
            self.waiting,
        )

    def event(self) -> EdgeCounts:
        """Return the counts, the rate over the last 256 batches, and latencies over the last 4096 imaged in turn."""
        p50_ms, p99_ms = self._latency_percentiles_ms()
        return EdgeCounts(
            inferred=self.inferred,
            refreshed=self.refreshed,
            duplicates=self.duplicates,
            frames_per_s=self._frames_per_s(),
            frame_to_image_p50_ms=p50_ms,
            frame_to_image_p99_ms=p99_ms,
            refused=self.refused,
            unstitched=self.unstitched,
            put_off=self.put_off,
            waiting=self.waiting,
        )

    def _frames_per_s(self) -> float:
        if not self._done or self._done[-1][0] - self._done[0][0] < RATE_MIN_SPAN_S:
            return 0.0
        frames = sum(count for _, count in self._done) - self._done[0][1]
        return frames / (self._done[-1][0] - self._done[0][0])

    def _latency_percentiles_ms(self) -> tuple[float, float]:
        if not self._latencies:
            return 0.0, 0.0
        seconds, frames = zip(*self._latencies, strict=True)
        p50_s, p99_s = np.percentile(np.repeat(seconds, frames), (50, 99))
        return float(p50_s) * 1000, float(p99_s) * 1000


class Cadence:
    """Says when something that changes is due to be reported: changed since the last time, and not too soon after."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._reported: dict[Hashable, tuple[float, Hashable]] = {}

    def due(self, key: Hashable, state: Hashable, *, at_once: bool = False) -> bool:
        """Return whether `state` of `key` should be reported now, and take it as reported if so."""
        last_s, last_state = self._reported.get(key, (-float("inf"), None))
        now_s = time.monotonic()
        if state == last_state or (now_s - last_s < self._period_s and not at_once):
            return False
        self._reported[key] = now_s, state
        return True


class Reporter:
    """Sends counts, images and scores as telemetry, each when it changed and no more often than configured.

    Args:
        telemetry: where events go.
        settings: how often.
        on_first_pass: told once how good a whole perspective was on arrival.
    """

    def __init__(
        self, telemetry: TelemetrySender, settings: EdgeSettings, *, on_first_pass: Callable[[FirstPassScore], None]
    ) -> None:
        self.counter = EdgeCounter()
        self._telemetry = telemetry
        self._on_first_pass = on_first_pass
        self._mosaics = MosaicFeed(telemetry, whole_period_s=settings.whole_image_period_s)
        self._counts = Cadence(settings.report_period_s)
        self._images = Cadence(settings.image_period_s)
        self._scores = Cadence(settings.score_period_s)
        self._scorer = Scorer(min_coverage=settings.min_coverage, patch_crop_px=settings.patch_crop_px)

    def counts(self, *, at_once: bool = False) -> None:
        """Report counts and rates."""
        if self._counts.due("counts", self.counter.totals(), at_once=at_once):
            self._telemetry.send(self.counter.event())

    def perspective(
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
            scored = state, perspective.references
            if perspective.reference is not None and self._scores.due(key, scored, at_once=at_once):
                self._send_scores(perspective, kind, model)

    def forget(self, perspective: Perspective) -> None:
        """Let go of what is held of a perspective that no longer changes."""
        self._mosaics.forget(perspective.index)
        self._scorer.forget(perspective.index)

    def reference(self, perspective: Perspective, *, pixel_size_m: tuple[float, float]) -> None:
        """Report the reference image, once, when it came."""
        reference = perspective.reference
        if reference is None:
            return
        event = MosaicImage(perspective.index, MosaicKind.REFERENCE, 0, reference.origin_px, pixel_size_m)
        arrays = {"amplitude": reference.amplitude, "phase": reference.phase}
        self._telemetry.send(event, {name: array.astype(np.float32) for name, array in arrays.items()})

    def held_out(self, perspective: Perspective, model: Model) -> None:
        """Report the scores of the held-out frames, where there are any that `model` imaged last."""
        if (scores := self._scorer.score_held_out(perspective, model)) is not None:
            self._telemetry.send(scores)

    def _send_scores(self, perspective: Perspective, kind: MosaicKind, model: Model) -> None:
        scores = self._scorer.score(perspective, kind, model)
        if scores is None:
            return
        self._telemetry.send(scores)
        if kind is MosaicKind.FIRST_PASS and perspective.complete:
            self._on_first_pass(
                FirstPassScore(
                    perspective=perspective.index,
                    psnr_db=scores.quality.psnr_db.phase,
                    ssim=scores.quality.ssim.phase,
                    constant_psnr_db=scores.constant.psnr_db.phase,
                )
            )
