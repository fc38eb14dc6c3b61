"""Reduces telemetry to what the page shows: the present, and histories of bounded size."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatchmethod
from math import nan
from typing import Any, Generic, TypeVar

import msgspec
import numpy.typing as npt

from ptychoflow.dashboard import models
from ptychoflow.dashboard.health import PartsHealth
from ptychoflow.dashboard.mosaics import Channel, Mosaic, MosaicStore
from ptychoflow.dashboard.probe import NewestFrame, Path, ProbeStore
from ptychoflow.dashboard.rows import SERIES_COLUMNS, figures_of, mosaic_row, probe_row
from ptychoflow.dashboard.series import Series, SeriesCursor
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.tasks import TaskBoard
from ptychoflow.streaming.events import (
    AnyEvent,
    BufferReport,
    EdgeCounts,
    FrameTaken,
    GroundTruthReady,
    GroundTruthSkipped,
    HeldOutScores,
    MosaicArea,
    MosaicImage,
    MosaicKind,
    Part,
    PerspectiveScores,
    PerspectiveStarted,
    RegimeChanged,
    RegimeRules,
    ScanInfo,
    StepBreakdown,
    TaskScores,
    Telemetry,
    TrainingStep,
    ValidationLoss,
    WarningRaised,
    WeightsApplied,
    WeightsPublished,
    WeightsRejected,
)
from ptychoflow.streaming.ledger import FrameLedger

RowT = TypeVar("RowT", bound=models.Model)

WARNINGS_KEPT = 100
PERSPECTIVES_KEPT = 1000
VALIDATIONS_KEPT = 256
VERSIONS_KEPT = 20
REGIMES_KEPT = 20


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
        live: whether the run is watched, and not read from its folder.
        controllable: whether commands can be passed on to it.
    """

    def __init__(self, run: str, settings: DashboardSettings, *, live: bool = True, controllable: bool = False) -> None:
        self.instance = uuid.uuid4().hex[:12]
        self._lock = threading.Lock()
        self._run, self._live, self._controllable = run, live, controllable
        self._events = 0
        self._started_s: float | None = None
        self._last_event_s: float | None = None
        self._series = {
            name: Series(columns, capacity=settings.series_points) for name, columns in SERIES_COLUMNS.items()
        }
        self._mosaics = MosaicStore(kept_perspectives=settings.kept_perspectives, max_bytes=settings.max_image_bytes)
        self._ledger = FrameLedger()
        self._tasks = TaskBoard()
        self._health = PartsHealth()
        self._probe = ProbeStore(kept_perspectives=settings.kept_perspectives)
        self._perspectives: dict[int, _Stamped[models.PerspectiveRow]] = {}
        self._warnings: dict[tuple[Part, str], _Stamped[models.Warned]] = {}
        self._warnings_seen = 0
        self._ground_truth_seconds: dict[int, float] = {}
        self._held_out: dict[int, models.HeldOut] = {}
        self._buffer: dict[int, models.RankBuffer] = {}
        self._weights = models.WeightsHistory()
        self._regime = models.RegimeState()
        self._regimes: deque[models.RegimeRow] = deque(maxlen=REGIMES_KEPT)
        self._skipped: set[int] = set()
        self._validation: dict[int, _Stamped[models.ValidationRow]] = {}
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

    @property
    def live(self) -> bool:
        """Whether the run is followed as it goes on."""
        return self._live

    def apply(self, telemetry: Telemetry, arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Take in one event, with its arrays if it has any."""
        with self._lock:
            self._events += 1
            if self._started_s is None:
                self._started_s = telemetry.time_s
            self._last_event_s = max(self._last_event_s or telemetry.time_s, telemetry.time_s)
            self._ledger.apply(telemetry)
            self._tasks.take(telemetry.event)
            self._take_arrays(telemetry.event, arrays or {})
            self._take(telemetry.event, telemetry)
            self._health.take(telemetry)

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
                validation=_changed(self._validation, cursor.events),
            )
            return update, StateCursor(self._events, {name: series.cursor() for name, series in self._series.items()})

    def present(self, *, now_s: float) -> models.Present:
        """Return how the run stands, without histories."""
        with self._lock:
            return self._present(now_s)

    def scan(self) -> models.Scan | None:
        """Return what is being scanned, as far as it is known."""
        with self._lock:
            return self._scan

    def path(self, perspective: int) -> Path | None:
        """Return the probe's path through a perspective, or None where it is not known."""
        with self._lock:
            return self._probe.path(perspective)

    def newest_frame(self) -> NewestFrame | None:
        """Return the frame that was shown last, or None before the first."""
        with self._lock:
            return self._probe.newest

    def newest_perspective(self) -> int | None:
        """Return the newest perspective that has an image at hand, or None."""
        with self._lock:
            return max((mosaic.info.perspective for mosaic in self._mosaics.all()), default=None)

    def images(self, perspective: int) -> dict[MosaicKind, Mosaic]:
        """Return the newest images of a perspective as the edge sent them; empty where none is kept."""
        with self._lock:
            return self._mosaics.of(perspective)

    @singledispatchmethod
    def _take(self, event: AnyEvent, telemetry: Telemetry) -> None:
        """Events that only the ledger knows need no more."""

    @_take.register
    def _(self, event: WarningRaised, telemetry: Telemetry) -> None:
        stamped = self._warnings.pop((telemetry.part, event.text), None)
        if stamped is None:
            self._warnings_seen += 1
            row = models.Warned(
                id=self._warnings_seen, time_s=telemetry.time_s, part=telemetry.part, text=event.text, count=1
            )
        else:
            row = stamped.row.model_copy(update={"time_s": telemetry.time_s, "count": stamped.row.count + 1})
        self._warnings[telemetry.part, event.text] = _Stamped(row, self._events)
        if len(self._warnings) > WARNINGS_KEPT:
            del self._warnings[next(iter(self._warnings))]

    @_take.register
    def _(self, event: ScanInfo, telemetry: Telemetry) -> None:
        self._scan = models.Scan.model_validate(event)

    @_take.register
    def _(self, event: GroundTruthReady, telemetry: Telemetry) -> None:
        self._ground_truth_seconds[event.perspective] = event.seconds

    @_take.register
    def _(self, event: TrainingStep, telemetry: Telemetry) -> None:
        self._training = models.Training.model_validate(event)
        self._append("training", telemetry.time_s, msgspec.structs.asdict(event))

    @_take.register
    def _(self, event: StepBreakdown, telemetry: Telemetry) -> None:
        self._append("steps", telemetry.time_s, msgspec.structs.asdict(event))

    @_take.register
    def _(self, event: BufferReport, telemetry: Telemetry) -> None:
        self._buffer[telemetry.rank] = models.RankBuffer.model_validate(
            msgspec.structs.asdict(event) | {"rank": telemetry.rank}
        )
        size = sum(rank.size for rank in self._buffer.values())
        hidden = sum(rank.hidden_fraction for rank in self._buffer.values()) / len(self._buffer)
        self._append("buffer", telemetry.time_s, {"size": size, "capacity": event.capacity, "hidden_fraction": hidden})

    @_take.register
    def _(self, event: ValidationLoss, telemetry: Telemetry) -> None:
        self._append("validation", telemetry.time_s, msgspec.structs.asdict(event))
        row = models.ValidationRow(
            after_perspective=event.after_perspective,
            step=event.step,
            losses=event.per_perspective,
            constant=event.constant,
        )
        self._validation[event.after_perspective] = _Stamped(row, self._events)
        if len(self._validation) > VALIDATIONS_KEPT:
            del self._validation[min(self._validation)]
        for perspective, loss in event.per_perspective.items():
            self._change_row(perspective, {"validation_loss": loss})

    @_take.register
    def _(self, event: GroundTruthSkipped, telemetry: Telemetry) -> None:
        self._skipped.add(event.perspective)

    @_take.register
    def _(self, event: RegimeRules, telemetry: Telemetry) -> None:
        thresholds = {"threshold_psnr_phase_db": event.psnr_db, "threshold_ssim_phase": event.ssim}
        self._regime = self._regime.model_copy(update={"automatic": True, **thresholds})

    @_take.register
    def _(self, event: RegimeChanged, telemetry: Telemetry) -> None:
        self._regimes.append(
            models.RegimeRow(
                time_s=telemetry.time_s, regime=event.regime, perspective=event.perspective, reason=event.reason
            )
        )
        self._regime = self._regime.model_copy(update={"name": event.regime, "history": list(self._regimes)})

    @_take.register
    def _(self, event: WeightsPublished, telemetry: Telemetry) -> None:
        self._weights.published = event.version

    @_take.register
    def _(self, event: WeightsApplied, telemetry: Telemetry) -> None:
        self._weights.applied = event.version
        others = [version for version in self._weights.versions if version != event.version]
        self._weights.versions = sorted([*others, event.version])[-VERSIONS_KEPT:]

    @_take.register
    def _(self, event: WeightsRejected, telemetry: Telemetry) -> None:
        self._weights.rejected += 1
        self._weights.last_rejection = f"version {event.version}: {event.reason}"

    @_take.register
    def _(self, event: EdgeCounts, telemetry: Telemetry) -> None:
        self._inference = models.Inference.model_validate(event)
        self._append("edge", telemetry.time_s, msgspec.structs.asdict(event))

    @_take.register
    def _(self, event: PerspectiveScores, telemetry: Telemetry) -> None:
        quality, constant = figures_of(event.quality), figures_of(event.constant)
        baseline = {f"constant_{name}": value for name, value in constant.model_dump().items()}
        version = max(event.model_versions, default=0)
        self._append(event.kind, telemetry.time_s, quality.model_dump() | baseline | {"model_version": version})
        scores = {event.kind.value: quality, "constant": constant}
        self._change_row(event.perspective, {"angle_deg": event.angle_deg, "frames": event.frames, **scores})

    @_take.register
    def _(self, event: HeldOutScores, telemetry: Telemetry) -> None:
        self._held_out[event.perspective] = models.HeldOut(
            perspective=event.perspective,
            frames=event.frames,
            model_version=event.model_version,
            quality=figures_of(event.quality),
            constant=figures_of(event.constant),
        )

    @_take.register
    def _(self, event: TaskScores, telemetry: Telemetry) -> None:
        self._append("tasks", telemetry.time_s, msgspec.structs.asdict(event))

    def _take_arrays(self, event: AnyEvent, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        match event:
            case MosaicImage() | MosaicArea():
                self._take_mosaic(event, arrays)
            case PerspectiveStarted():
                self._probe.start(event, arrays)
            case FrameTaken():
                self._probe.show(event, arrays)

    def _take_mosaic(self, event: MosaicImage | MosaicArea, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """An image of no pixels, or an event read back from the run's folder without its arrays, shows nothing."""
        if not all(channel in arrays and arrays[channel].ndim == 2 and arrays[channel].size for channel in Channel):
            return
        if isinstance(event, MosaicArea):
            self._mosaics.put_area(event, dict(arrays))
        else:
            self._mosaics.put(event, dict(arrays))

    def _append(self, name: str, time_s: float, values: Mapping[str, Any]) -> None:
        known = {column: values[column] for column in SERIES_COLUMNS[name]}
        self._series[name].append(time_s, {column: nan if value is None else value for column, value in known.items()})

    def _change_row(self, perspective: int, changes: Mapping[str, Any]) -> None:
        stamped = self._perspectives.get(perspective)
        row = stamped.row if stamped else models.PerspectiveRow(perspective=perspective)
        self._perspectives[perspective] = _Stamped(row.model_copy(update=dict(changes)), self._events)
        if len(self._perspectives) > PERSPECTIVES_KEPT:
            del self._perspectives[min(self._perspectives)]

    def _present(self, now_s: float) -> models.Present:
        counts = self._ledger.counts()
        seconds, newest = self._ground_truth_seconds, self._probe.newest
        return models.Present(
            run=self._run,
            live=self._live,
            controllable=self._controllable,
            instance=self.instance,
            state=self._health.run_state(),
            now_s=now_s,
            started_s=self._started_s,
            last_event_s=self._last_event_s,
            events=self._events,
            scan=self._scan,
            classification=self._tasks.answer(),
            parts=self._health.all(),
            frames=models.Frames.model_validate(counts),
            training=self._training,
            inference=self._inference,
            buffer=[self._buffer[rank] for rank in sorted(self._buffer)],
            weights=self._weights.model_copy(),
            ground_truth=models.GroundTruth(
                perspectives=len(seconds), seconds=sum(seconds.values()), skipped=len(self._skipped)
            ),
            regime=self._regime,
            held_out=[self._held_out[index] for index in sorted(self._held_out)],
            mosaics=[mosaic_row(mosaic) for mosaic in self._mosaics.all()],
            paths=self._probe.known,
            probe=None if newest is None else probe_row(newest),
        )


def _changed(rows: Mapping[Any, _Stamped[RowT]], since_event: int) -> list[RowT]:
    return [stamped.row for stamped in rows.values() if stamped.event > since_event]
