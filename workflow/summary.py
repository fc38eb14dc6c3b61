"""Reduces the telemetry of a run to its summary, the content of `summary.json`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import singledispatchmethod
from statistics import fmean
from typing import Any

from ptychoflow.streaming.events import (
    AnyEvent,
    BufferReport,
    Channels,
    EdgeCounts,
    GroundTruthReady,
    HeldOutScores,
    MosaicKind,
    Part,
    PartObserved,
    PartState,
    PartStatus,
    PerspectiveScores,
    Quality,
    ScanInfo,
    StepBreakdown,
    Telemetry,
    TrainingResumed,
    TrainingStep,
    ValidationLoss,
    WarningRaised,
    WeightsApplied,
    WeightsPublished,
    WeightsRejected,
)
from ptychoflow.streaming.ledger import FrameLedger
from ptychoflow.workflow.regime_summary import RegimeHistory
from ptychoflow.workflow.task_summary import TaskHistory

Summary = dict[str, Any]


class SummaryBuilder:
    """Takes in the telemetry of one run, in the order in which it came, and sums it up at any time.

    Figures that are not finite become None, so that the summary is valid JSON.
    """

    def __init__(self) -> None:
        self._frames = FrameLedger()
        self._regime = RegimeHistory()
        self._tasks = TaskHistory()
        self._scan: ScanInfo | None = None
        self._held_out: dict[int, HeldOutScores] = {}
        self._scores: dict[tuple[int, MosaicKind], PerspectiveScores] = {}
        self._ground_truth: dict[int, GroundTruthReady] = {}
        self._validation: list[ValidationLoss] = []
        self._versions: dict[type, set[int]] = {WeightsPublished: set(), WeightsApplied: set(), WeightsRejected: set()}
        self._buffer: dict[int, BufferReport] = {}
        self._edge: EdgeCounts | None = None
        self._imaged = _Rate()
        self._training: TrainingStep | None = None
        self._resumed_from_steps: list[int] = []
        self._trained = _Rate()
        self._steps: list[StepBreakdown] = []
        self._warnings: Counter[tuple[Part, str]] = Counter()
        self._failures: dict[tuple[Part, str], float] = {}
        self._first_s = math.inf
        self._last_s = -math.inf

    def add(self, telemetry: Telemetry) -> None:
        """Take in one event."""
        self._first_s = min(self._first_s, telemetry.time_s)
        self._last_s = max(self._last_s, telemetry.time_s)
        self._frames.apply(telemetry)
        self._regime.add(telemetry.event)
        self._tasks.add(telemetry.event)
        self._take(telemetry.event, telemetry)

    def summary(self, *, interrupted: bool = False) -> Summary:
        """Return the summary of what was taken in so far; plain JSON values only.

        Frames that were on their way when a run was `interrupted` count as lost.
        """
        content: Summary = {
            "interrupted": interrupted,
            "seconds": max(self._last_s - self._first_s, 0.0),
            "scan": None if self._scan is None else _plain(self._scan),
            "frames": self._frame_counts(),
            "unlabelled_because": {str(why): n for why, n in self._frames.counts().unlabelled_because.items()},
            "held_out": self._held_out_scores(),
            "classification": self._tasks.summary(),
            "perspectives": [self._perspective(index) for index in self._perspective_indices()],
            "validation_loss": [_validation(event) for event in self._validation],
            "weights": {
                "published": len(self._versions[WeightsPublished]),
                "applied": len(self._versions[WeightsApplied]),
                "rejected": len(self._versions[WeightsRejected]),
            },
            "regime": self._regime.summary(),
            "buffer": _buffer(list(self._buffer.values())),
            "throughput": self._throughput(),
            "training": self._training_summary(),
            "warnings": [{"part": part, "text": text, "count": n} for (part, text), n in self._warnings.items()],
            "failures": [{"part": part, "text": text} for part, text in self._failures],
        }
        return {key: _finite(value) for key, value in content.items()}

    @singledispatchmethod
    def _take(self, event: AnyEvent, telemetry: Telemetry) -> None:
        """Events without a part in the summary are ignored."""

    @_take.register
    def _(self, event: ScanInfo, telemetry: Telemetry) -> None:
        self._scan = event

    @_take.register
    def _(self, event: HeldOutScores, telemetry: Telemetry) -> None:
        self._held_out[event.perspective] = event

    @_take.register
    def _(self, event: PerspectiveScores, telemetry: Telemetry) -> None:
        self._scores[event.perspective, event.kind] = event

    @_take.register
    def _(self, event: GroundTruthReady, telemetry: Telemetry) -> None:
        self._ground_truth[event.perspective] = event

    @_take.register
    def _(self, event: ValidationLoss, telemetry: Telemetry) -> None:
        self._validation.append(event)

    @_take.register(WeightsPublished)
    @_take.register(WeightsApplied)
    @_take.register(WeightsRejected)
    def _(self, event: WeightsPublished | WeightsApplied | WeightsRejected, telemetry: Telemetry) -> None:
        self._versions[type(event)].add(event.version)

    @_take.register
    def _(self, event: TrainingResumed, telemetry: Telemetry) -> None:
        self._resumed_from_steps.append(event.step)
        self._validation = [one for one in self._validation if one.step <= event.step]

    @_take.register
    def _(self, event: BufferReport, telemetry: Telemetry) -> None:
        self._buffer[telemetry.rank] = event

    @_take.register
    def _(self, event: EdgeCounts, telemetry: Telemetry) -> None:
        self._edge = event
        self._imaged.add(telemetry.time_s, event.inferred)

    @_take.register
    def _(self, event: TrainingStep, telemetry: Telemetry) -> None:
        self._training = event
        self._trained.add(telemetry.time_s, event.stream_samples + event.rehearsed_samples)

    @_take.register
    def _(self, event: StepBreakdown, telemetry: Telemetry) -> None:
        self._steps.append(event)

    @_take.register
    def _(self, event: WarningRaised, telemetry: Telemetry) -> None:
        self._warnings[telemetry.part, event.text] += 1

    @_take.register
    def _(self, event: PartStatus, telemetry: Telemetry) -> None:
        self._take_state(telemetry.part, event.state, event.text, telemetry.time_s)

    @_take.register
    def _(self, event: PartObserved, telemetry: Telemetry) -> None:
        self._take_state(event.part, event.state, event.text, telemetry.time_s)

    def _take_state(self, part: Part, state: PartState, text: str, time_s: float) -> None:
        if state is PartState.FAILED:
            self._failures.setdefault((part, text), time_s)

    def _frame_counts(self) -> dict[str, int]:
        counts = self._frames.counts()
        numbers = asdict(counts) | {"lost": counts.lost}
        del numbers["unlabelled_because"]
        return numbers

    def _held_out_scores(self) -> Summary | None:
        """Figures are means over the perspectives that have held-out frames (usually one)."""
        events = [self._held_out[index] for index in sorted(self._held_out)]
        if not events:
            return None
        figures = _mean_scores([event.quality for event in events])
        return {
            "perspectives": [event.perspective for event in events],
            "frames": sum(event.frames for event in events),
            "model_version": max(event.model_version for event in events),
            **figures,
            "constant": _mean_scores([event.constant for event in events]),
        }

    def _perspective_indices(self) -> list[int]:
        return sorted({index for index, _ in self._scores} | set(self._ground_truth))

    def _perspective(self, index: int) -> Summary:
        first_pass = self._scores.get((index, MosaicKind.FIRST_PASS))
        refreshed = self._scores.get((index, MosaicKind.REFRESHED))
        newest = refreshed or first_pass
        ground_truth = self._ground_truth.get(index)
        return {
            "index": index,
            "angle_deg": newest.angle_deg if newest else None,
            "frames": newest.frames if newest else None,
            "first_pass": _scores(first_pass),
            "refreshed": _scores(refreshed),
            "constant": {"model_versions": [], **_mean_scores([newest.constant])} if newest else None,
            "ground_truth": str(ground_truth.source) if ground_truth else None,
        }

    def _throughput(self) -> Summary:
        edge, training = self._edge, self._training
        return {
            "frames_per_s": self._imaged.per_s(otherwise=edge.frames_per_s if edge else None),
            "samples_trained_per_s": self._trained.per_s(otherwise=training.samples_per_s if training else None),
            "frame_to_image_ms": {
                "p50": edge.frame_to_image_p50_ms if edge else None,
                "p99": edge.frame_to_image_p99_ms if edge else None,
            },
        }

    def _training_summary(self) -> Summary | None:
        if self._training is None:
            return None
        fields = ("load_ms", "train_ms", "buffer_wait_ms", "populate_ms", "augment_ms")
        step_ms = {name: fmean(getattr(event, name) for event in self._steps) for name in fields if self._steps}
        return {
            "steps": self._training.step,
            "resumed_from_steps": self._resumed_from_steps,
            "stream_samples": self._training.stream_samples,
            "rehearsed_samples": self._training.rehearsed_samples,
            "step_ms": step_ms or None,
        }


class _Rate:
    """Mean rate of a cumulative count, from its first report to the report in which it last rose."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] = (0.0, 0)

    def add(self, time_s: float, count: int) -> None:
        if self._first is None:
            self._first = self._last = (time_s, count)
        elif count > self._last[1]:
            self._last = (time_s, count)

    def per_s(self, *, otherwise: float | None) -> float | None:
        """Return the rate, or `otherwise` where fewer than two reports differ."""
        if self._first is None or self._last[0] <= self._first[0]:
            return otherwise
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])


def _plain(scan: ScanInfo) -> Summary:
    return {
        "source": scan.source,
        "perspectives": scan.perspectives,
        "frames_expected": scan.frames_expected,
        "frame_shape_px": list(scan.frame_shape_px),
        "target_shape_px": list(scan.target_shape_px),
        "object_pixel_size_m": list(scan.object_pixel_size_m),
        "energy_eV": scan.energy_eV,
        "ground_truth": str(scan.ground_truth),
        "notes": list(scan.notes),
    }


def _validation(event: ValidationLoss) -> Summary:
    return {
        "after_perspective": event.after_perspective,
        "step": event.step,
        "mean_over_seen": event.mean_over_seen,
        "constant": event.constant,
    }


def _scores(event: PerspectiveScores | None) -> Summary | None:
    if event is None:
        return None
    return {"model_versions": list(event.model_versions), **_mean_scores([event.quality])}


def _mean_scores(qualities: Sequence[Quality]) -> Summary:
    return {
        "correlation": _mean_channels(quality.correlation for quality in qualities),
        "psnr_db": _mean_channels(quality.psnr_db for quality in qualities),
        "ssim": _mean_channels(quality.ssim for quality in qualities),
    }


def _mean_channels(figures: Iterable[Channels]) -> dict[str, float]:
    channels = list(figures)
    return {"amplitude": fmean(c.amplitude for c in channels), "phase": fmean(c.phase for c in channels)}


def _buffer(reports: Sequence[BufferReport]) -> Summary | None:
    """Sum the sizes and average the times over ranks."""
    if not reports:
        return None
    return {
        "capacity": reports[0].capacity,
        "size": sum(report.size for report in reports),
        "transport": reports[0].transport,
        "hidden_fraction": fmean(report.hidden_fraction for report in reports),
        "waited_ms": fmean(report.waited_ms for report in reports),
        "background_ms": fmean(report.background_ms for report in reports),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
