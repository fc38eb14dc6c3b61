"""The state of a run as its page shows it: what telemetry tells, images, and patches for viewers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from ptychoflow.dashboard import models, rows
from ptychoflow.dashboard.mosaics import Mosaic, MosaicStore
from ptychoflow.dashboard.probe import NewestFrame, Path, ProbeStore
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.streaming.events import (
    AnyEvent,
    FrameTaken,
    MosaicArea,
    MosaicImage,
    MosaicKind,
    PerspectiveStarted,
    PositionsTaken,
    ResidualMapped,
    Telemetry,
)
from ptychoflow.streaming.state.run import RunState
from ptychoflow.streaming.state.series import SeriesCursor


@dataclass(frozen=True)
class StateCursor:
    """How much of the state a viewer has."""

    events: int = 0
    series: Mapping[str, SeriesCursor] = field(default_factory=dict)


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
        self._run, self._live, self._controllable = run, live, controllable
        self._state = RunState(series_points=settings.series_points)
        self._lock = self._state.lock
        self._mosaics = MosaicStore(kept_perspectives=settings.kept_perspectives, max_bytes=settings.max_image_bytes)
        self._probe = ProbeStore(kept_perspectives=settings.kept_perspectives)

    @property
    def events(self) -> int:
        """Telemetry events taken in so far; every one changes the state."""
        return self._state.events

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
            self._state.apply(telemetry)
            self._take_arrays(telemetry.event, arrays or {})

    def update(self, cursor: StateCursor, *, now_s: float) -> tuple[models.StateUpdate, StateCursor]:
        """Return what a viewer at `cursor` lacks, and its new cursor. A new cursor gets everything."""
        with self._lock:
            state = self._state
            validation = state.training.validation
            update = models.StateUpdate(
                present=self._present(now_s),
                series={
                    name: series.since(cursor.series.get(name, SeriesCursor())) for name, series in state.series.items()
                },
                perspectives=rows.perspective_rows(state.perspectives.rows.since(cursor.events)),
                warnings=state.warnings.rows.since(cursor.events),
                validation=[rows.validation_row(row) for row in validation.since(cursor.events)],
                validation_anew=validation.undone_at > cursor.events,
            )
            series = {name: series.cursor() for name, series in state.series.items()}
            return update, StateCursor(state.events, series)

    def present(self, *, now_s: float) -> models.Present:
        """Return how the run stands, without histories."""
        with self._lock:
            return self._present(now_s)

    def scan(self) -> models.Scan | None:
        """Return what is being scanned, as far as it is known."""
        with self._lock:
            return None if self._state.scan is None else models.Scan.model_validate(self._state.scan)

    def path(self, perspective: int) -> Path | None:
        """Return the probe's path through a perspective, or None where it is not known."""
        with self._lock:
            return self._probe.path(perspective)

    def newest_frame(self) -> NewestFrame | None:
        """Return the frame that was shown last, or None before the first."""
        with self._lock:
            return self._probe.newest

    def pictured(self) -> set[int]:
        """Return the perspectives that have an image at hand."""
        with self._lock:
            return {mosaic.info.perspective for mosaic in self._mosaics.all()}

    def images(self, perspective: int) -> dict[MosaicKind, Mosaic]:
        """Return the newest images of a perspective as the edge sent them; empty where none is kept."""
        with self._lock:
            return self._mosaics.of(perspective)

    def _take_arrays(self, event: AnyEvent, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        match event:
            case MosaicImage() | MosaicArea():
                self._mosaics.take(event, arrays)
            case ResidualMapped():
                self._mosaics.take_residual(event, arrays)
            case PerspectiveStarted():
                self._probe.start(event, arrays)
            case PositionsTaken():
                self._probe.extend(event, arrays)
            case FrameTaken():
                self._probe.show(event, arrays)

    def _present(self, now_s: float) -> models.Present:
        state, newest = self._state, self._probe.newest
        training, inference = state.training.newest, state.edge
        return models.Present(
            run=self._run,
            live=self._live,
            controllable=self._controllable,
            instance=self.instance,
            state=state.parts.run_state(),
            now_s=now_s,
            started_s=state.started_s,
            last_event_s=state.last_event_s,
            events=state.events,
            scan=None if state.scan is None else models.Scan.model_validate(state.scan),
            classification=rows.classification_row(state.tasks),
            parts=[models.PartHealth.model_validate(part) for part in state.parts.all()],
            frames=models.Frames.model_validate(state.ledger.counts()),
            unheard=state.ledger.unheard,
            training=None if training is None else models.Training.model_validate(training),
            inference=None if inference is None else models.Inference.model_validate(inference),
            buffer=rows.buffer_rows(state),
            weights=rows.weights_row(state.weights),
            ground_truth=models.GroundTruth(
                perspectives=state.regime.perspectives,
                seconds=state.regime.seconds,
                skipped=len(state.regime.skipped),
            ),
            regime=rows.regime_row(state.regime),
            residual=None if state.residual is None else models.Residual.model_validate(state.residual),
            calibration=None if state.calibration is None else models.Calibration.model_validate(state.calibration),
            held_out=rows.held_out_rows(state),
            mosaics=[rows.mosaic_row(mosaic) for mosaic in self._mosaics.all()],
            paths=self._probe.lengths,
            probe=None if newest is None else rows.probe_row(newest),
        )
