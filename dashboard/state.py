"""Reduces telemetry to what the page shows: the present, and histories of bounded size."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any, Generic, TypeVar

import msgspec
import numpy.typing as npt

from dashboard import models
from dashboard.mosaics import Channel, Mosaic, MosaicStore
from dashboard.series import Series, SeriesCursor
from dashboard.settings import DashboardSettings
from streaming.events import (
    AcquisitionCounts,
    AnyEvent,
    BufferReport,
    EdgeCounts,
    GroundTruthReady,
    HeldOutScores,
    MosaicImage,
    MosaicKind,
    Part,
    PartState,
    PartStatus,
    PerspectiveScores,
    Quality,
    RankCounts,
    ScanInfo,
    StepBreakdown,
    Telemetry,
    TrainingStep,
    ValidationLoss,
    WarningRaised,
    WeightsApplied,
    WeightsPublished,
    WeightsRejected,
)
from streaming.ledger import FrameLedger

RowT = TypeVar("RowT", bound=models.Model)

WORDS_KEPT = 6
WARNINGS_KEPT = 100
PERSPECTIVES_KEPT = 1000

SCORE_COLUMNS = ("psnr_amplitude_db", "psnr_phase_db", "ssim_amplitude", "ssim_phase")
SERIES_COLUMNS = {
    "training": ("step", "loss", "loss_amplitude", "loss_phase", "learning_rate", "samples_per_s"),
    "validation": ("step", "mean_over_seen", "constant"),
    "first_pass": (*SCORE_COLUMNS, *(f"constant_{name}" for name in SCORE_COLUMNS)),
    "refreshed": (*SCORE_COLUMNS, *(f"constant_{name}" for name in SCORE_COLUMNS)),
    "edge": ("frames_per_s", "frame_to_image_p50_ms", "frame_to_image_p99_ms"),
    "buffer": ("size", "capacity", "hidden_fraction"),
    "steps": ("step", "load_ms", "train_ms", "buffer_wait_ms", "buffer_background_ms"),
}
SPEAKS_FOR: dict[type, Part] = {
    ScanInfo: Part.ACQUISITION,
    AcquisitionCounts: Part.ACQUISITION,
    GroundTruthReady: Part.ACQUISITION,
    RankCounts: Part.TRAINER,
    TrainingStep: Part.TRAINER,
    StepBreakdown: Part.TRAINER,
    BufferReport: Part.TRAINER,
    ValidationLoss: Part.TRAINER,
    WeightsPublished: Part.TRAINER,
    WeightsApplied: Part.EDGE,
    WeightsRejected: Part.EDGE,
    EdgeCounts: Part.EDGE,
    PerspectiveScores: Part.EDGE,
    HeldOutScores: Part.EDGE,
    MosaicImage: Part.EDGE,
}


@dataclass(frozen=True)
class StateCursor:
    """How much of the state a viewer has."""

    events: int = 0
    series: Mapping[str, SeriesCursor] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stamped(Generic[RowT]):
    """A row with the number of the event that changed it last."""

    row: RowT
    event: int


class DashboardState:
    """Takes in telemetry from one thread and answers viewers from others; all methods are thread-safe and short.

    Args:
        run: the run's name.
        settings: how much to keep.
    """

    def __init__(self, run: str, settings: DashboardSettings) -> None:
        self.instance = uuid.uuid4().hex[:12]
        self._lock = threading.Lock()
        self._run = run
        self._events = 0
        self._started_s: float | None = None
        self._last_event_s: float | None = None
        self._series = {
            name: Series(columns, capacity=settings.series_points) for name, columns in SERIES_COLUMNS.items()
        }
        self._mosaics = MosaicStore(kept_perspectives=settings.kept_perspectives, max_bytes=settings.max_image_bytes)
        self._ledger = FrameLedger()
        self._parts: dict[Part, models.PartHealth] = {}
        self._words: dict[Part, deque[models.LastWord]] = {}
        self._perspectives: dict[int, _Stamped[models.PerspectiveRow]] = {}
        self._warnings: dict[tuple[Part, str], _Stamped[models.Warned]] = {}
        self._warnings_seen = 0
        self._ground_truth_seconds: dict[int, float] = {}
        self._held_out: dict[int, models.HeldOut] = {}
        self._buffer: dict[int, models.RankBuffer] = {}
        self._weights = models.WeightsHistory()
        self._scan: models.Scan | None = None
        self._training: models.Training | None = None
        self._inference: models.Inference | None = None

    @property
    def events(self) -> int:
        """Telemetry events taken in so far; every one changes the state."""
        return self._events

    @property
    def run(self) -> str:
        """The run's name."""
        return self._run

    def apply(self, telemetry: Telemetry, arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Take in one event, with its arrays if it has any."""
        with self._lock:
            self._events += 1
            if self._started_s is None:
                self._started_s = telemetry.time_s
            self._last_event_s = max(self._last_event_s or telemetry.time_s, telemetry.time_s)
            self._ledger.add(telemetry.event)
            if isinstance(telemetry.event, MosaicImage):
                self._take_mosaic(telemetry.event, arrays or {})
            else:
                self._take(telemetry.event, telemetry.time_s)
            self._hear(telemetry)

    def update(self, cursor: StateCursor, *, now_s: float) -> tuple[models.StateUpdate, StateCursor]:
        """Return what a viewer at `cursor` lacks, and its new cursor. A new cursor gets everything."""
        with self._lock:
            update = models.StateUpdate(
                present=self._present(now_s),
                series={
                    name: series.since(cursor.series.get(name, SeriesCursor())) for name, series in self._series.items()
                },
                perspectives=_changed(self._perspectives, cursor.events),
                warnings=_changed(self._warnings, cursor.events),
            )
            return update, StateCursor(self._events, {name: series.cursor() for name, series in self._series.items()})

    def images(self, perspective: int) -> dict[MosaicKind, Mosaic]:
        """Return the newest images of a perspective as the edge sent them; empty where none is kept."""
        with self._lock:
            return self._mosaics.of(perspective)

    @singledispatchmethod
    def _take(self, event: AnyEvent, time_s: float) -> None:
        """Events that only the ledger knows need no more."""

    @_take.register
    def _(self, event: PartStatus, time_s: float) -> None:
        words = self._words.setdefault(event.part, deque(maxlen=WORDS_KEPT))
        words.append(models.LastWord(time_s=time_s, state=event.state, text=event.text))
        self._parts[event.part] = models.PartHealth(
            part=event.part, state=event.state, text=event.text, last_heard_s=time_s, words=list(words)
        )

    @_take.register
    def _(self, event: WarningRaised, time_s: float) -> None:
        stamped = self._warnings.pop((event.part, event.text), None)
        if stamped is None:
            self._warnings_seen += 1
            row = models.Warned(id=self._warnings_seen, time_s=time_s, part=event.part, text=event.text, count=1)
        else:
            row = stamped.row.model_copy(update={"time_s": time_s, "count": stamped.row.count + 1})
        self._warnings[event.part, event.text] = _Stamped(row, self._events)
        if len(self._warnings) > WARNINGS_KEPT:
            del self._warnings[next(iter(self._warnings))]

    @_take.register
    def _(self, event: ScanInfo, time_s: float) -> None:
        self._scan = models.Scan.model_validate(event)

    @_take.register
    def _(self, event: GroundTruthReady, time_s: float) -> None:
        self._ground_truth_seconds[event.perspective] = event.seconds

    @_take.register
    def _(self, event: TrainingStep, time_s: float) -> None:
        self._training = models.Training.model_validate(event)
        self._append("training", time_s, msgspec.structs.asdict(event))

    @_take.register
    def _(self, event: StepBreakdown, time_s: float) -> None:
        self._append("steps", time_s, msgspec.structs.asdict(event))

    @_take.register
    def _(self, event: BufferReport, time_s: float) -> None:
        self._buffer[event.rank] = models.RankBuffer.model_validate(event)
        size = sum(rank.size for rank in self._buffer.values())
        hidden = sum(rank.hidden_fraction for rank in self._buffer.values()) / len(self._buffer)
        self._append("buffer", time_s, {"size": size, "capacity": event.capacity, "hidden_fraction": hidden})

    @_take.register
    def _(self, event: ValidationLoss, time_s: float) -> None:
        self._append("validation", time_s, msgspec.structs.asdict(event))
        for perspective, loss in event.per_perspective.items():
            self._change_row(perspective, {"validation_loss": loss})

    @_take.register
    def _(self, event: WeightsPublished, time_s: float) -> None:
        self._weights.published = event.version

    @_take.register
    def _(self, event: WeightsApplied, time_s: float) -> None:
        self._weights.applied = event.version

    @_take.register
    def _(self, event: WeightsRejected, time_s: float) -> None:
        self._weights.rejected += 1
        self._weights.last_rejection = f"version {event.version}: {event.reason}"

    @_take.register
    def _(self, event: EdgeCounts, time_s: float) -> None:
        self._inference = models.Inference.model_validate(event)
        self._append("edge", time_s, msgspec.structs.asdict(event))

    @_take.register
    def _(self, event: PerspectiveScores, time_s: float) -> None:
        quality, constant = _figures(event.quality), _figures(event.constant)
        baseline = {f"constant_{name}": value for name, value in constant.model_dump().items()}
        self._append(event.kind, time_s, quality.model_dump() | baseline)
        scores = {event.kind.value: quality, "constant": constant}
        self._change_row(event.perspective, {"angle_deg": event.angle_deg, "frames": event.frames, **scores})

    @_take.register
    def _(self, event: HeldOutScores, time_s: float) -> None:
        self._held_out[event.perspective] = models.HeldOut(
            perspective=event.perspective,
            frames=event.frames,
            model_version=event.model_version,
            quality=_figures(event.quality),
            constant=_figures(event.constant),
        )

    def _take_mosaic(self, event: MosaicImage, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """An image of no pixels, or an event read back from the run's folder without its arrays, shows nothing."""
        if all(channel in arrays and arrays[channel].ndim == 2 and arrays[channel].size for channel in Channel):
            self._mosaics.put(event, dict(arrays))

    def _hear(self, telemetry: Telemetry) -> None:
        part = SPEAKS_FOR.get(type(telemetry.event))
        if part is None:
            return
        if part not in self._parts:
            self._parts[part] = models.PartHealth(
                part=part, state=PartState.RUNNING, text="", last_heard_s=telemetry.time_s, words=[]
            )
        self._parts[part].last_heard_s = telemetry.time_s

    def _append(self, name: str, time_s: float, values: Mapping[str, Any]) -> None:
        self._series[name].append(time_s, {column: values[column] for column in SERIES_COLUMNS[name]})

    def _change_row(self, perspective: int, changes: Mapping[str, Any]) -> None:
        stamped = self._perspectives.get(perspective)
        row = stamped.row if stamped else models.PerspectiveRow(perspective=perspective)
        self._perspectives[perspective] = _Stamped(row.model_copy(update=dict(changes)), self._events)
        if len(self._perspectives) > PERSPECTIVES_KEPT:
            del self._perspectives[min(self._perspectives)]

    def _present(self, now_s: float) -> models.Present:
        counts = self._ledger.counts()
        seconds = self._ground_truth_seconds
        return models.Present(
            run=self._run,
            instance=self.instance,
            state=self._run_state(),
            now_s=now_s,
            started_s=self._started_s,
            last_event_s=self._last_event_s,
            events=self._events,
            scan=self._scan,
            parts=[self._parts[part].model_copy() for part in Part if part in self._parts],
            frames=models.Frames.model_validate(counts),
            training=self._training,
            inference=self._inference,
            buffer=[self._buffer[rank] for rank in sorted(self._buffer)],
            weights=self._weights.model_copy(),
            ground_truth=models.GroundTruth(perspectives=len(seconds), seconds=sum(seconds.values())),
            held_out=[self._held_out[index] for index in sorted(self._held_out)],
            mosaics=[_mosaic_row(mosaic) for mosaic in self._mosaics.all()],
        )

    def _run_state(self) -> PartState:
        """The launcher's word counts, if there is one; else the parts' own."""
        if Part.WORKFLOW in self._parts:
            return self._parts[Part.WORKFLOW].state
        states = {health.state for part, health in self._parts.items() if part is not Part.DASHBOARD}
        if PartState.FAILED in states:
            return PartState.FAILED
        if PartState.RUNNING in states:
            return PartState.RUNNING
        return PartState.DONE if states == {PartState.DONE} else PartState.STARTING


def _changed(rows: Mapping[Any, _Stamped[RowT]], since_event: int) -> list[RowT]:
    return [stamped.row for stamped in rows.values() if stamped.event > since_event]


def _figures(quality: Quality) -> models.Figures:
    return models.Figures(
        psnr_amplitude_db=quality.psnr_db.amplitude,
        psnr_phase_db=quality.psnr_db.phase,
        ssim_amplitude=quality.ssim.amplitude,
        ssim_phase=quality.ssim.phase,
        correlation_amplitude=quality.correlation.amplitude,
        correlation_phase=quality.correlation.phase,
    )


def _mosaic_row(mosaic: Mosaic) -> models.MosaicRow:
    info = mosaic.info
    return models.MosaicRow(
        perspective=info.perspective,
        kind=info.kind,
        model_version=info.model_version,
        revision=mosaic.revision,
        shape_px=mosaic.shape_px,
        origin_px=info.origin_px,
        pixel_size_m=info.pixel_size_m,
    )
