"""Live scans from a script of arrivals, through a real arrivals file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    FramesCame,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.arrivals_file import LISTENING, STOPPED, ArrivalsReader, ArrivalsWriter
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.detectors.live_scan import LiveScan
from ptychoflow.acquisition.detectors.message import Message, Run
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.publishing.ledger import Ledger
from ptychoflow.acquisition.scan import Ending, Perspective
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings

SCAN = SimulatedScan(SimulationSettings(perspectives=3, frames_per_perspective=49, frame_shape_px=(32, 32)))
SETTINGS = {
    "frames": {"kind": "dectris-v2", "host": "127.0.0.1"},
    "positions": {"kind": "panda", "host": "127.0.0.1", "field_y": "Y", "field_x": "X", "stale_first_sample": False},
    "join": {"first_frame": 0, "first_sample": 0, "samples_per_frame": 1, "wait_s": 2.0},
    "first_frames": 16,
}
HEADER = SeriesHeader(
    shape_px=(32, 32), energy_eV=8800.0, detector_distance_m=1.5, detector_pixel_size_m=(75e-6, 75e-6)
)


@dataclass(frozen=True)
class PlainImage:
    """A frame that needs no decoding; None is a damaged one."""

    frame: npt.NDArray[np.generic] | None
    shape_px: tuple[int, int] = (32, 32)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.uint16) if self.frame is None else self.frame.dtype

    def decode(self) -> npt.NDArray[np.generic]:
        if self.frame is None:
            raise ValueError("its bytes are damaged")
        return self.frame


class ScriptDecoder(Decoder):
    """Understands messages that hold the number of an arrival in a list."""

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self._arrivals = arrivals

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        return [self._arrivals[int.from_bytes(parts[0], "big")]]

    def decode_run(self, run: Run) -> Iterator[tuple[Arrival | FramesCame, float]]:
        """Yield frames of one series that come one after the other together."""
        arrivals = super().decode_run(run)
        for series, group in groupby(arrivals, lambda one: one[0].series if isinstance(one[0], FrameCame) else None):
            if series is None:
                yield from group
                continue
            frames = [(one, at_s) for one, at_s in group if isinstance(one, FrameCame)]
            numbers = np.array([one.number for one, _ in frames])
            times_s = np.array([at_s for _, at_s in frames])
            yield FramesCame(series, numbers, tuple(one.image for one, _ in frames), times_s), float(times_s[0])


class Script:
    """Arrivals with their times, written as a receiver would."""

    together: ClassVar[int] = 1
    """How many messages are written at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrivals: list[Arrival] = []
        self._writer = ArrivalsWriter(folder, ["frames", "positions"])
        self._waiting: list[Message] = []

    def add(self, arrival: Arrival, at_s: float) -> None:
        self._append(Message(0, at_s, [len(self.arrivals).to_bytes(4, "big")]))
        self.arrivals.append(arrival)

    def listen(self, at_s: float) -> Script:
        """Begin to listen, as another receiver."""
        return self._append(Message(LISTENING, at_s, ()))

    def stop(self, at_s: float) -> Script:
        """End as a receiver."""
        return self._append(Message(STOPPED, at_s, ()))

    def _append(self, message: Message) -> Script:
        self._waiting.append(message)
        if len(self._waiting) >= self.together:
            self._flush()
        return self

    def _flush(self) -> None:
        if self._waiting:
            self._writer.append_all(self._waiting)
            self._waiting = []

    def add_all(self, events: Iterable[tuple[float, Arrival]]) -> Script:
        for at_s, arrival in sorted(events, key=lambda event: event[0]):
            self.add(arrival, at_s)
        return self

    def scan(
        self,
        settings: dict | None = None,
        *,
        step_s: float = 0.5,
        told: int = 0,
        probe: npt.NDArray[np.complex64] | None = None,
    ) -> Taken:
        """Open the scan, with a clock that goes on by `step_s` whenever it is looked at after the last arrival."""
        self._flush()
        clock = {"s": 0.0}

        def tick() -> float:
            clock["s"] += step_s
            return clock["s"]

        taken = Taken()
        clock["s"] = 1e6
        scan = LiveScan(
            LiveSettings.model_validate({**SETTINGS, "end_after_idle_s": 100.0, **(settings or {})}),
            ArrivalsReader(self.folder),
            [ScriptDecoder(self.arrivals)],
            attend=tick,
            probe=probe,
            ledger=taken.ledger,
            warn=taken.warnings.append,
        )
        scan.told = told
        taken.scan = scan
        return taken


@dataclass
class Taken:
    """Everything that came out of a live scan."""

    ledger: Ledger = field(default_factory=Ledger)
    warnings: list[str] = field(default_factory=list)
    frames: list[dict[int, npt.NDArray[np.generic]]] = field(default_factory=list)
    """By perspective, then by index."""
    positions_px: list[dict[int, npt.NDArray[np.float64]]] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    scan: LiveScan | None = None

    def run(self, *, batch_frames: int = 8) -> Taken:
        assert self.scan is not None
        for perspective in self.scan.arriving():
            if perspective is None:
                continue
            frames: dict[int, npt.NDArray[np.generic]] = {}
            positions: dict[int, npt.NDArray[np.float64]] = {}
            for batch in perspective.batches(batch_frames):
                if batch is None:
                    continue
                assert 0 < len(batch) <= batch_frames
                assert not set(frames) & set(batch.indices.tolist())
                frames |= dict(zip(batch.indices.tolist(), batch.frames, strict=True))
                positions |= dict(zip(batch.indices.tolist(), batch.positions_px, strict=True))
                self.warnings += batch.notes
            self.frames.append(frames)
            self.positions_px.append(positions)
            self.endings.append(perspective.ending)
        self.scan.close()
        return self

    def assert_shows(self, perspective: Perspective, triggers: Iterable[int], *, which: int = 0) -> None:
        """Fail unless exactly these frames came, each with its counts and its position."""
        assert sorted(self.frames[which]) == sorted(triggers)
        for trigger in triggers:
            np.testing.assert_array_equal(self.frames[which][trigger], perspective.read(trigger, trigger + 1)[0])
            np.testing.assert_allclose(self.positions_px[which][trigger], perspective.positions_px[trigger])


def frame(perspective: Perspective, trigger: int, series: str = "1") -> FrameCame:
    return FrameCame(series, trigger, PlainImage(perspective.read(trigger, trigger + 1)[0]))


def positions_m(perspective: Perspective, triggers: Sequence[int]) -> npt.NDArray[np.float64]:
    return perspective.positions_px[list(triggers)] * perspective.geometry.object_pixel_size_m


def positions(perspective: Perspective, triggers: Sequence[int], run: str = "a") -> PositionsCame:
    return PositionsCame(run, np.array(triggers), positions_m(perspective, triggers))


def whole_series(
    perspective: Perspective, *, series: str = "1", run: str = "a", begin_s: float = 0.0, period_s: float = 0.01
) -> list[tuple[float, Arrival]]:
    """Return what comes of a series in which nothing goes wrong."""
    frames = len(perspective)
    times = begin_s + period_s * np.arange(1, frames + 1)
    return [
        (begin_s, SeriesBegan(series, HEADER)),
        (begin_s, PositionsBegan(run, None)),
        *((at_s, frame(perspective, trigger, series)) for trigger, at_s in enumerate(times)),
        *((at_s + 0.1 * period_s, positions(perspective, [t], run)) for t, at_s in enumerate(times)),
        (times[-1] + period_s, SeriesEnded(series, Ending.COMPLETE)),
        (times[-1] + period_s, PositionsEnded(run, Ending.COMPLETE)),
    ]
