"""The series of a live scan: which arrivals belong to which, and when each is over."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    EncodedImage,
    FrameCame,
    FramesCame,
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
    number: int
    """Series are numbered as they began."""
    joiner: SeriesJoiner
    former_s: tuple[float, float] | None = None
    """When the first and the last frame of the series before came."""
    header: SeriesHeader = field(default_factory=SeriesHeader)
    run: str | None = None
    """The run of positions that belongs to it."""
    run_ending: Ending | None = None
    """How that ended; None while it goes on."""
    most_placed: int | None = None
    """Frames that there will be positions for, where their source has said."""
    over: bool = False
    """Nothing more is taken: what still comes is late."""
    over_told: bool = False
    """A person knows what may be wrong with a series that is over and had no positions."""


class _Block(NamedTuple):
    """Positions that came together."""

    numbers: npt.NDArray[np.int64]
    positions_m: npt.NDArray[np.float64]
    at_s: float


@dataclass
class _Run:
    """A run of positions whose series is not known yet."""

    series: str | None
    number: int
    """Runs are numbered as they began."""
    captured: bool
    total: int | None
    """Samples that there will be."""
    announced_s: float
    former: int | None
    """Number of the series that had the name already, with frames."""
    amid: bool
    """That one had not ended, and its own positions had not either, or only because these began."""
    began_s: float | None = None
    """When its first sample came."""
    blocks: list[_Block] = field(default_factory=list)
    samples: int = 0
    """In the blocks."""
    ending: Ending | None = None
    """None while it goes on."""


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
        self._most_samples = join.first_sample + join.most_frames * join.samples_per_frame
        self._malformed = 0
        self._known: PositionsKnown | None = None
        self._open: dict[str, Series] = {}
        self._finished: dict[str, int | None] = {}
        """The numbers of series that were let go of; None where no frame came."""
        self._runs: dict[str, _Run] = {}
        self._series_of_run: dict[str, Series] = {}
        self._newest: SeriesJoiner | None = None
        """Of the series that began last."""
        self._series_begun = self._runs_begun = 0
        self._no_series_told = False
        """Since positions were joined to a series."""
        self._joined: deque[tuple[int, int]] = deque(maxlen=RUNS_KEPT)
        """Numbers of runs and their series, where time alone joined them."""
        self._apart_s: float | None = None
        """How long after captured positions their frames began to come, the last time."""

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

    def apply_frames(self, frames: FramesCame) -> None:
        """Take in frames that came one after the other, as `apply` each of them."""
        if not self._add_frames(frames):
            for frame, at_s in frames:
                self.apply(frame, at_s=at_s)

    def _add_frames(self, frames: FramesCame) -> bool:
        """Take in frames if the time that passed from the first to the last decides nothing; return whether it was so.

        Series that await their positions may be decided by every moment, and a series by its first frame.
        """
        first_s, last_s = float(frames.received_at_s[0]), float(frames.received_at_s[-1])
        self.pass_time(first_s)
        series = self._open.get(frames.series)
        if series is None or series.over or series.joiner.first_frame_s is None:
            return False
        if self._runs and any(one.run is None and not one.over for one in self._open.values()):
            return False
        if (frames.received_at_s[1:] < frames.received_at_s[:-1]).any():
            return False
        if series.joiner.decides_within(first_s, last_s, idle_s=self._idle_s) or not series.joiner.add_frames(frames):
            return False
        self.last_arrival_s = last_s
        self.pass_time(last_s)
        return True

    def _apply_positions(
        self, arrival: PositionsBegan | PositionsCame | PositionsEnded | PositionsKnown, at_s: float
    ) -> None:
        match arrival:
            case PositionsBegan():
                self._begin_run(arrival, at_s)
            case PositionsCame(run=run, numbers=numbers, positions_m=positions_m):
                self._add_positions(run, numbers, positions_m, at_s)
            case PositionsEnded(run=run, ending=ending, lost=lost):
                self._end_run(run, ending, lost)
            case PositionsKnown():
                self._known = arrival
                for series in self._open.values():
                    self._add_known(series)

    def pass_time(self, now_s: float) -> None:
        """Give up what has waited too long."""
        self._match(now_s)
        for series in list(self._open.values()):
            series.joiner.give_up(now_s=now_s, idle_s=self._idle_s)
            series.over |= series.joiner.finished(now_s=now_s)
            if series.over and not series.over_told:
                self._tell_misnamed(series)
                self._leave_out_second(series)
            if series.over and series.joiner.first_frame_s is None:
                self.let_go(series)
        if self._runs:
            self._give_up_runs(now_s)

    def listen(self, now_s: float) -> None:
        """Take in that a receiver listens from now on: nobody knows whether sources were silent before.

        Its clock may have been set back since the receiver before: nothing that came then came later than now.
        """
        if self.last_arrival_s is not None:
            self.last_arrival_s = now_s
        for series in self._open.values():
            series.joiner.listen(now_s)
            if series.former_s is not None:
                first_s, last_s = series.former_s
                series.former_s = min(first_s, now_s), min(last_s, now_s)
        for run in self._runs.values():
            run.announced_s = min(run.announced_s, now_s)
            run.began_s = None if run.began_s is None else min(run.began_s, now_s)
            run.blocks = [block._replace(at_s=min(block.at_s, now_s)) for block in run.blocks]

    def let_go(self, series: Series) -> None:
        """Forget a series: what still comes of it is late."""
        self._open.pop(series.name, None)
        self._finished[series.name] = None if series.joiner.first_frame_s is None else series.number
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
            self._leave_out_second(former)
        self._series_begun += 1
        former_s = None if self._newest is None else _frames_s(self._newest)
        self._newest = SeriesJoiner(self._join)
        series = Series(name, self._series_begun, self._newest, former_s, header)
        self._open[name] = series
        self._add_known(series)
        return series

    def _add_known(self, series: Series) -> None:
        """Give a series the positions that hold for every one."""
        if self._known is not None:
            series.joiner.know_positions(self._known.numbers, self._known.positions_m)

    def _rename(self, series: Series) -> None:
        """Keep a series that is over under a name of its own, so that another one may have its name."""
        # several of one name may wait to be read
        former = f"{series.name} (former, number {series.number})"
        self._open = {former if one is series else name: one for name, one in self._open.items()}
        series.name = former

    def _add_frame(self, name: str, number: int, image: EncodedImage, at_s: float) -> None:
        series = self._open.get(name)
        if name in self._finished or (series is not None and series.over):
            self.late[Unplaced.LATE] += 1
            return
        if series is None:
            self.notes.append(f"series {name} was not announced: its header was lost, or sent before anybody listened")
            series = self._open_series(name, SeriesHeader(), at_s)
        series.joiner.add_frame(number, image, at_s=at_s)

    def _begin_run(self, began: PositionsBegan, at_s: float) -> None:
        self._runs_begun += 1
        former = None if began.series is None else self._number_of(began.series)
        amid = any(
            one.number == former
            and one.run is not None
            and one.joiner.ending is None
            and one.run_ending in (None, Ending.NEXT_SERIES)
            for one in self._open.values()
        )
        self._runs[began.run] = _Run(
            began.series, self._runs_begun, began.captured, began.total, announced_s=at_s, former=former, amid=amid
        )
        while len(self._runs) > RUNS_KEPT:
            self._give_up_run(next(iter(self._runs)))

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
        if run.samples >= self._most_samples:
            return  # a series has use for no more, and this one may never come
        run.samples += len(numbers)
        run.blocks.append(_Block(numbers, positions_m, at_s))
        if run.began_s is None:
            run.began_s = at_s

    def _end_run(self, name: str, ending: Ending, lost: int) -> None:
        if lost:
            self.notes.append(
                f"the source of positions could not capture {lost} samples; their frames have no position"
            )
        if (known := self._series_of_run.get(name)) is not None:
            known.joiner.positions_over, known.run_ending = True, ending
        elif name in self._runs:
            self._runs[name].ending = ending

    def _match(self, now_s: float) -> None:
        """Join runs and series of which it is certain by now, one after the other, as if it had been done in time."""
        while due := [one for one in self._matches() if one[0] <= now_s]:
            certain_s, name, series = min(due, key=lambda one: one[0])
            series.joiner.give_up(now_s=certain_s, idle_s=self._idle_s)
            series.over |= series.joiner.finished(now_s=certain_s)
            if not series.over:
                self._join_run(name, self._runs[name], series)

    def _give_up_runs(self, now_s: float) -> None:
        """Let go of positions that began too long ago for any series that is there or comes."""
        for name, run in list(self._runs.items()):
            early = run.began_s is not None and now_s - run.began_s > self._join.begin_within_s
            first_of_name = run.series is not None and run.former is None
            awaited = first_of_name or any(self._may_belong(run, series) for series in self._open.values())
            if early and not awaited:
                self._give_up_run(name)

    def _may_belong(self, run: _Run, series: Series) -> bool:
        return self._is_near(run, series) and series.run is None and not series.over

    def _is_near(self, run: _Run, series: Series) -> bool:
        """Whether a run of positions and the frames of a series began near enough to each other."""
        began_s, first_s = run.began_s, series.joiner.first_frame_s
        return began_s is not None and first_s is not None and abs(began_s - first_s) <= self._join.begin_within_s

    def _give_up_run(self, name: str) -> None:
        """Let go of a run of positions: what still comes of it is left out as well."""
        run = self._runs.pop(name)
        if run.series is not None:
            why = "which did not come" if run.former is None else "which was over or had others, and did not come again"
            self.notes.append(f"positions came that name the series {run.series}, {why}; they are left out")
            return
        if not self._no_series_told:
            self.notes.append("positions came that belong to no series; they are left out")
        self._no_series_told = True

    def _leave_out_second(self, series: Series) -> None:
        """Let go of positions whose source began anew in the middle of a series: they are of none that comes later."""
        last_s = series.joiner.last_frame_s
        for name, run in list(self._runs.items()):
            if run.amid and run.former == series.number and last_s is not None and run.announced_s <= last_s:
                self._give_up_run(name)

    def _matches(self) -> Iterator[tuple[float, str, Series]]:
        """Yield what may be joined, and when it is certain: nothing can begin any more that is nearer in time."""
        for series in reversed(self._open.values()):
            if series.run is None and not series.over:
                for name, run in reversed(self._runs.items()):
                    if self._belong(run, series):
                        yield self._certain_from_s(run, series), name, series

    def _certain_from_s(self, run: _Run, series: Series) -> float:
        began_s, first_s = run.began_s, series.joiner.first_frame_s
        if began_s is None or first_s is None:
            return math.inf
        if run.series is not None:
            return max(began_s, first_s)
        # frames must not be given up meanwhile
        return max(began_s, first_s) + min(abs(began_s - first_s), self._join.wait_s / 2)

    def _belong(self, run: _Run, series: Series) -> bool:
        if run.series is not None:
            # of a name that comes again, positions may have come late for the former series
            again = run.former is not None and run.former != series.number
            return series is self._named(run.series) and (not again or self._is_near(run, series))
        frames_s = _frames_s(series.joiner)
        if run.began_s is None or frames_s is None:
            return False
        first_s, last_s = frames_s
        if not self._is_near(run, series):
            return False
        if any((run.number - other_run) * (series.number - other) < 0 for other_run, other in self._joined):
            return False  # an earlier run is of no later series
        if not run.captured or self._apart_s is None or _lags(series, run.began_s):
            return True
        frames_before, frames_after = max(-self._apart_s, 0.0) + FAR_S, max(self._apart_s, 0.0) + FAR_S
        return run.blocks[-1].at_s >= first_s - frames_after and last_s >= run.began_s - frames_before

    def _named(self, name: str) -> Series | None:
        """Return the series of a name; of a number, the newest one that has it before a hyphen: they count anew."""
        named = self._open.get(name)
        if named is not None or not name.isdecimal():
            return named
        return next(
            (one for one in reversed(self._open.values()) if one.name.startswith(f"{name}-") and not one.over), None
        )

    def _number_of(self, name: str) -> int | None:
        """Return the number of the newest series that `_named` would find and of which frames came, over or not."""
        numbers = {one.name: None if one.joiner.first_frame_s is None else one.number for one in self._open.values()}
        known = self._finished | numbers
        if name in known or not name.isdecimal():
            return known.get(name)
        return max((number for one, number in known.items() if number and one.startswith(f"{name}-")), default=None)

    def _tell_misnamed(self, series: Series) -> None:
        """Say so where a series had no positions while some waited for one of another name."""
        series.over_told = True
        if series.run is not None or series.joiner.first_frame_s is None:
            return
        waiting = sorted({run.series for run in self._runs.values() if run.series is not None and run.blocks})
        if waiting:
            self.notes.append(
                f"no positions came for series {series.name}, while some wait for {', '.join(waiting)[:200]}; if they "
                "are its own, they must name it as the detector does, or no series at all"
            )

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
        self._no_series_told = False
        if run.total is not None:
            series.most_placed = max(run.total - self._join.first_sample, 0) // self._join.samples_per_frame
        self._series_of_run[name] = series
        del self._runs[name]
        if run.series is None:
            self._joined.append((run.number, series.number))
        if run.captured and run.began_s is not None and series.joiner.first_frame_s is not None:
            self._apart_s = series.joiner.first_frame_s - run.began_s
        self._tell_far(run, series)
        for block in run.blocks:
            series.joiner.add_positions(block.numbers, block.positions_m, at_s=block.at_s)
        series.joiner.positions_over, series.run_ending = run.ending is not None, run.ending


def _frames_s(joiner: SeriesJoiner) -> tuple[float, float] | None:
    """Return when the first and the last frame came."""
    first_s, last_s = joiner.first_frame_s, joiner.last_frame_s
    return None if first_s is None or last_s is None else (first_s, last_s)


def _lags(series: Series, began_s: float) -> bool:
    """Whether the detector still sent the former series when positions began: its frames were not taken for a while."""
    return series.former_s is not None and series.former_s[0] < began_s < series.former_s[1]
