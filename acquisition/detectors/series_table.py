"""The series of a live scan: which arrivals belong to which, and when each is over."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    EncodedImage,
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    PositionsKnown,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.joiner import SeriesJoiner
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.events import Unplaced

FINISHED_KEPT = 1000
MALFORMED_TOLD = 20
FAR_S = 1.0
"""Sources that are triggered together begin less apart than this."""
RUNS_KEPT = 16
"""Runs of positions that wait for their series."""


@dataclass
class Series:
    """One series, from its first word to its last."""

    name: str
    joiner: SeriesJoiner
    header: SeriesHeader = field(default_factory=SeriesHeader)
    run: str | None = None
    """The run of positions that belongs to it."""
    over: bool = False
    """Nothing more is taken: what still comes is late."""


@dataclass
class _Run:
    """A run of positions whose series is not known yet."""

    series: str | None
    began_s: float | None = None
    """When its first sample came."""
    blocks: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]] = field(default_factory=list)
    over: bool = False


class SeriesTable:
    """Gives every arrival to its series. Decides by the times of arrival alone, so that a resume decides the same.

    When a series is let go of depends on who reads: nothing may be decided by it that being over does not decide.

    Args:
        join: how frames and positions are joined.
        idle_s: a series has stalled after so long.
    """

    def __init__(self, join: JoinSettings, *, idle_s: float) -> None:
        self.late: Counter[Unplaced] = Counter()
        """Frames of series that are over, since this was cleared."""
        self.notes: deque[str] = deque()
        """What a person should know, since it was taken."""
        self.last_arrival_s: float | None = None
        self._join, self._idle_s = join, idle_s
        self._malformed = 0
        self._known: PositionsKnown | None = None
        self._open: dict[str, Series] = {}
        self._finished: dict[str, None] = {}
        self._runs: dict[str, _Run] = {}
        self._series_of_run: dict[str, Series] = {}

    @property
    def first(self) -> Series | None:
        """The oldest series that has not been let go of and of which a frame came."""
        return next((series for series in self._open.values() if series.joiner.first_frame_s is not None), None)

    def apply(self, arrival: Arrival, *, at_s: float) -> None:
        """Take in what a message said."""
        self.pass_time(at_s)
        self.last_arrival_s = at_s
        match arrival:
            case SeriesBegan(series=name, header=header):
                self._begin(name, header, at_s)
            case FrameCame(series=name, number=number, image=image):
                self._add_frame(name, number, image, at_s)
            case SeriesEnded(series=name, ending=ending):
                if (ended := self._open.get(name)) is not None:
                    ended.joiner.end(ending, at_s=at_s)
            case PositionsBegan() | PositionsCame() | PositionsEnded() | PositionsKnown():
                self._apply_positions(arrival, at_s)
            case Malformed(reason=reason):
                self._malformed += 1
                if self._malformed <= MALFORMED_TOLD:
                    last = "; further ones are not told" if self._malformed == MALFORMED_TOLD else ""
                    self.notes.append(f"a message could not be understood and is left out: {reason}{last}")

    def _apply_positions(
        self, arrival: PositionsBegan | PositionsCame | PositionsEnded | PositionsKnown, at_s: float
    ) -> None:
        match arrival:
            case PositionsBegan(run=run, series=name):
                self._begin_run(run, name)
            case PositionsCame(run=run, numbers=numbers, positions_m=positions_m):
                self._add_positions(run, numbers, positions_m, at_s)
            case PositionsEnded(run=run, lost=lost):
                self._end_run(run, lost)
            case PositionsKnown():
                self._known = arrival
                for series in self._open.values():
                    self._add_known(series, at_s)

    def pass_time(self, now_s: float) -> None:
        """Give up what has waited too long."""
        self._match_rest(now_s)
        for series in list(self._open.values()):
            series.joiner.give_up(now_s=now_s, idle_s=self._idle_s)
            series.over |= series.joiner.finished(now_s=now_s)
            if series.over and series.joiner.first_frame_s is None:
                self.let_go(series)

    def listen(self, now_s: float) -> None:
        """Take in that a receiver listens from now on: nobody knows whether sources were silent before."""
        if self.last_arrival_s is not None:
            self.last_arrival_s = now_s
        for series in self._open.values():
            series.joiner.listen(now_s)

    def let_go(self, series: Series) -> None:
        """Forget a series: what still comes of it is late."""
        self._open.pop(series.name, None)
        self._finished[series.name] = None
        if len(self._finished) > FINISHED_KEPT:
            del self._finished[next(iter(self._finished))]
        if series.run is not None:
            self._series_of_run.pop(series.run, None)

    def _begin(self, name: str, header: SeriesHeader, at_s: float) -> None:
        known = self._open.get(name)
        if known is not None and known.joiner.ending is None:
            known.header = header  # announced again, or after its first frame
            return
        if known is not None:  # a detector that was started again counts from the beginning
            self._rename(known)
        self._finished.pop(name, None)
        self._open_series(name, header, at_s)

    def _open_series(self, name: str, header: SeriesHeader, at_s: float) -> Series:
        for former in self._open.values():
            former.joiner.end(Ending.NEXT_SERIES, at_s=at_s)
        series = Series(name, SeriesJoiner(self._join), header)
        self._open[name] = series
        self._add_known(series, at_s)
        return series

    def _add_known(self, series: Series, at_s: float) -> None:
        """Give a series the positions that hold for every one."""
        if self._known is not None:
            series.joiner.add_positions(self._known.numbers, self._known.positions_m, at_s=at_s)
            series.joiner.positions_over = True

    def _rename(self, series: Series) -> None:
        """Keep a series that is over under a name of its own, so that another one may have its name."""
        renamed = {f"{name} (former)" if one is series else name: one for name, one in self._open.items()}
        series.name = f"{series.name} (former)"
        self._open = renamed

    def _add_frame(self, name: str, number: int, image: EncodedImage, at_s: float) -> None:
        series = self._open.get(name)
        if name in self._finished or (series is not None and series.over):
            self.late[Unplaced.LATE] += 1
            return
        if series is None:
            self.notes.append(f"series {name} was not announced: its header was lost, or sent before anybody listened")
            series = self._open_series(name, SeriesHeader(), at_s)
        is_first = series.joiner.first_frame_s is None
        series.joiner.add_frame(number, image, at_s=at_s)
        if is_first and series.joiner.first_frame_s is not None:
            self._match_series(series)

    def _begin_run(self, name: str, series: str | None) -> None:
        self._runs[name] = _Run(series)
        while len(self._runs) > RUNS_KEPT:
            del self._runs[next(iter(self._runs))]
            self.notes.append("positions came that belong to no series; they are left out")

    def _add_positions(
        self, name: str, numbers: npt.NDArray[np.int64], positions_m: npt.NDArray[np.float64], at_s: float
    ) -> None:
        if (known := self._series_of_run.get(name)) is not None:
            if not known.over:
                known.joiner.add_positions(numbers, positions_m, at_s=at_s)
            return
        run = self._runs.get(name)
        if run is None:
            return  # of a series that is over, or of a run that was given up
        run.blocks.append((numbers, positions_m, at_s))
        if run.began_s is None:
            run.began_s = at_s
            self._match_run(name, run)

    def _end_run(self, name: str, lost: int) -> None:
        if lost:
            self.notes.append(
                f"the source of positions could not capture {lost} samples; their frames have no position"
            )
        if (known := self._series_of_run.get(name)) is not None:
            known.joiner.positions_over = True
        elif name in self._runs:
            self._runs[name].over = True

    def _match_run(self, name: str, run: _Run) -> None:
        """Give a run that begins to its series, if frames of that have come; the newest one in doubt."""
        for series in reversed(self._open.values()):
            going_on = not series.over and (run.series is not None or series.joiner.ending is None)
            if going_on and series.run is None and self._belong(run, series):
                self._join_run(name, run, series)
                return

    def _match_series(self, series: Series) -> None:
        """Give a series that begins the run of positions that has begun; the newest one in doubt."""
        for name, run in reversed(self._runs.items()):
            going_on = run.series is not None or not run.over
            if going_on and self._belong(run, series):
                self._join_run(name, run, series)
                return

    def _match_rest(self, now_s: float) -> None:
        """Join those of which one was over before the other began, if meanwhile nothing nearer in time has begun."""
        for series in reversed(self._open.values()):
            if series.run is None and not series.over:
                for name, run in reversed(self._runs.items()):
                    if self._belong(run, series) and now_s >= (from_s := self._nothing_nearer_from_s(run, series)):
                        series.joiner.give_up(now_s=from_s, idle_s=self._idle_s)
                        self._join_run(name, run, series)
                        break

    def _nothing_nearer_from_s(self, run: _Run, series: Series) -> float:
        began_s, first_s = run.began_s, series.joiner.first_frame_s
        if began_s is None or first_s is None:
            return math.inf
        # frames must not be given up meanwhile
        return max(began_s, first_s) + min(abs(began_s - first_s), self._join.wait_s / 2)

    def _belong(self, run: _Run, series: Series) -> bool:
        if run.series is not None:
            return run.series == series.name
        first_s = series.joiner.first_frame_s
        if run.began_s is None or first_s is None:
            return False
        return abs(run.began_s - first_s) <= self._join.begin_within_s

    def _tell_far(self, run: _Run, series: Series) -> None:
        """Say so where time is all that joins positions to a series, and not by much."""
        began_s, first_s = run.began_s, series.joiner.first_frame_s
        if run.series is not None or began_s is None or first_s is None or abs(began_s - first_s) <= FAR_S:
            return
        side = "after" if began_s > first_s else "before"
        self.notes.append(
            f"positions that began {abs(began_s - first_s):.1f} s {side} the first frame of series {series.name} are "
            "taken to be its own; if they are of another one, set source.join.begin_within_s lower"
        )

    def _join_run(self, name: str, run: _Run, series: Series) -> None:
        series.run = name
        self._series_of_run[name] = series
        del self._runs[name]
        self._tell_far(run, series)
        for numbers, positions_m, at_s in run.blocks:
            series.joiner.add_positions(numbers, positions_m, at_s=at_s)
        series.joiner.positions_over = run.over
