"""How a run stands: the one reducer of its telemetry."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable

import msgspec

from ptychoflow.streaming.events import (
    Channels,
    EdgeCounts,
    MosaicKind,
    PerspectiveScores,
    Quality,
    ResidualCalibrated,
    ResidualScores,
    ScanInfo,
    Telemetry,
    TrainingResumed,
)
from ptychoflow.streaming.state.beginning import Beginning
from ptychoflow.streaming.state.classification import TaskHistory
from ptychoflow.streaming.state.ledger import FrameLedger
from ptychoflow.streaming.state.parts import PartsHealth
from ptychoflow.streaming.state.perspectives import Perspectives
from ptychoflow.streaming.state.rate import Rate
from ptychoflow.streaming.state.regime import RegimeHistory
from ptychoflow.streaming.state.rows import shortened
from ptychoflow.streaming.state.series import Series
from ptychoflow.streaming.state.training import TrainingHistory
from ptychoflow.streaming.state.warnings import Warnings
from ptychoflow.streaming.state.weights import WeightsHistory

SERIES_POINTS = 600
NOTES_KEPT = 100
LATEST_S = 253_402_300_799.0
"""The end of the year 9999: a later time is no time."""
SCORE_COLUMNS = ("psnr_amplitude_db", "psnr_phase_db", "ssim_amplitude", "ssim_phase")
SERIES_COLUMNS = {
    "training": ("step", "loss", "loss_amplitude", "loss_phase", "learning_rate", "samples_per_s"),
    "validation": ("step", "mean_over_seen", "constant"),
    "first_pass": ("model_version", *SCORE_COLUMNS, *(f"constant_{name}" for name in SCORE_COLUMNS)),
    "refreshed": ("model_version", *SCORE_COLUMNS, *(f"constant_{name}" for name in SCORE_COLUMNS)),
    "residual": ("perspective", "newest", "error_rad"),
    "edge": ("frames_per_s", "frame_to_image_p50_ms", "frame_to_image_p99_ms"),
    "buffer": ("size", "capacity", "hidden_fraction"),
    "tasks": ("task", "top1", "top5"),
    "steps": ("step", "load_ms", "train_ms", "buffer_wait_ms", "populate_ms", "augment_ms"),
}


class RunState:
    """What is known of a run. `apply` holds `lock`; who reads while others apply holds it too.

    Args:
        series_points: points kept of every curve.
    """

    def __init__(self, *, series_points: int = SERIES_POINTS) -> None:
        self.lock = threading.RLock()
        self.events = 0
        """Events taken in so far; every one changes the state."""
        self.started_s: float | None = None
        self.last_event_s: float | None = None
        self.series = {name: Series(columns, capacity=series_points) for name, columns in SERIES_COLUMNS.items()}
        self.scan: ScanInfo | None = None
        self.edge: EdgeCounts | None = None
        self.residual: ResidualScores | None = None
        """Of first passes, the newest."""
        self.calibration: ResidualCalibrated | None = None
        self.imaged = Rate()
        self.beginning = Beginning()
        self.ledger = FrameLedger()
        self.parts = PartsHealth()
        self.warnings = Warnings()
        self.weights = WeightsHistory()
        self.regime = RegimeHistory()
        self.perspectives = Perspectives()
        self.training = TrainingHistory(self.series)
        self.tasks = TaskHistory(self.series["tasks"])

    def apply(self, telemetry: Telemetry) -> None:
        """Take in one event, in the order in which they came."""
        with self.lock:
            self.events += 1
            at_s = self._heard_at(telemetry.time_s)
            self.beginning.apply(telemetry, at_s=at_s)
            self.ledger.apply(telemetry)
            self.weights.apply(telemetry)
            self.parts.apply(telemetry, at_s=at_s)
            self.regime.apply(telemetry, at_s=at_s)
            self.tasks.apply(telemetry, at_s=at_s)
            self.warnings.apply(telemetry, at_s=at_s, number=self.events)
            self.training.apply(telemetry, at_s=at_s, number=self.events)
            self.perspectives.apply(telemetry, number=self.events)
            self._apply(telemetry, at_s)

    def apply_all(self, events: Iterable[Telemetry]) -> RunState:
        """Take in many events; return itself."""
        for telemetry in events:
            self.apply(telemetry)
        return self

    @property
    def frames_expected(self) -> int | None:
        """Frames in the whole run, where the source can tell."""
        if self.tasks.info is not None:
            return sum(self.tasks.info.images)
        return None if self.scan is None else self.scan.frames_expected

    def _heard_at(self, time_s: float) -> float:
        """Return when an event was sent; one from outside of time counts as sent with the last."""
        if not 0 <= time_s <= LATEST_S:
            return self.last_event_s or 0.0
        self.started_s = time_s if self.started_s is None else min(self.started_s, time_s)
        self.last_event_s = time_s if self.last_event_s is None else max(self.last_event_s, time_s)
        return time_s

    def _apply(self, telemetry: Telemetry, at_s: float) -> None:
        match telemetry.event:
            case ScanInfo() as scan:
                notes = [shortened(note) for note in scan.notes[:NOTES_KEPT]]
                self.scan = msgspec.structs.replace(scan, source=shortened(scan.source), notes=notes)
            case EdgeCounts() as counts:
                self.edge = counts
                self.imaged.add(at_s, counts.inferred)
                self.series["edge"].append(at_s, msgspec.structs.asdict(counts))
            case PerspectiveScores(kind=kind) as scores if kind in self.series:
                constant = {f"constant_{name}": value for name, value in figures_of(scores.constant).items()}
                version = max(scores.model_versions, default=0)
                self.series[kind].append(at_s, {"model_version": version, **figures_of(scores.quality), **constant})
            case ResidualScores(kind=MosaicKind.FIRST_PASS) as residual:
                self.residual = residual
                newest = residual.residual if residual.newest is None else residual.newest
                error_rad = math.nan if residual.error_rad is None else residual.error_rad
                figures = {"perspective": residual.perspective, "newest": newest, "error_rad": error_rad}
                self.series["residual"].append(at_s, figures)
            case ResidualCalibrated() as calibration:
                self.calibration = calibration
            case TrainingResumed():
                self.perspectives.go_back(self.training.validation.all(), number=self.events)
            case _:
                pass


def figures_of(quality: Quality) -> dict[str, float]:
    """Return the figures of an image one beside another, `psnr_phase_db` and so on."""
    named: tuple[tuple[str, Channels, str], ...] = (
        ("psnr", quality.psnr_db, "_db"),
        ("ssim", quality.ssim, ""),
        ("correlation", quality.correlation, ""),
    )
    return {
        f"{name}_{channel}{unit}": getattr(figures, channel)
        for name, figures, unit in named
        for channel in ("amplitude", "phase")
    }
