"""Runs of positions that wait for their series: which belongs to which, by the name that it says or by time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import PositionsBegan
from ptychoflow.acquisition.detectors.series import Series
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending

FAR_S = 1.0
"""Sources that are triggered together begin less apart than this."""
RUNS_KEPT = 16
"""Runs of positions that wait for their series."""


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

    def began_after_s(self, series: Series) -> float | None:
        """Return how long after the first frame of a series the first sample came; None before both have."""
        first_s = series.joiner.first_frame_s
        return None if self.began_s is None or first_s is None else self.began_s - first_s

    def certain_from_s(self, series: Series, *, wait_s: float) -> float:
        """Return from when on nothing can begin any more that is nearer to a series in time."""
        began_s, first_s = self.began_s, series.joiner.first_frame_s
        if began_s is None or first_s is None:
            return math.inf
        if self.series is not None:
            return max(began_s, first_s)
        # frames must not be given up meanwhile
        return max(began_s, first_s) + min(abs(began_s - first_s), wait_s / 2)

    def comes_with(self, series: Series, apart_s: float) -> bool:
        """Whether positions came while frames did, if those began `apart_s` after their positions before."""
        first_s, last_s = series.joiner.first_frame_s, series.joiner.last_frame_s
        if self.began_s is None or first_s is None or last_s is None:
            return False
        frames_before, frames_after = max(-apart_s, 0.0) + FAR_S, max(apart_s, 0.0) + FAR_S
        return self.blocks[-1].at_s >= first_s - frames_after and last_s >= self.began_s - frames_before

    def listen(self, now_s: float) -> None:
        """See `SeriesTable.listen`."""
        self.announced_s = min(self.announced_s, now_s)
        self.began_s = None if self.began_s is None else min(self.began_s, now_s)
        self.blocks = [block._replace(at_s=min(block.at_s, now_s)) for block in self.blocks]


class RunsOfPositions:
    """Keeps positions until it is certain to which series they belong, and hands on what comes afterwards.

    Args:
        join: how frames and positions are joined.
        notes: what a person should know is put into it.
    """

    def __init__(self, join: JoinSettings, notes: deque[str]) -> None:
        self._join, self._notes = join, notes
        self._most_samples = join.first_sample + join.most_frames * join.samples_per_frame
        self._waiting: dict[str, _Run] = {}
        self._series_of: dict[str, Series] = {}
        self._begun = 0
        self._no_series_told = False
        """Since positions were joined to a series."""
        self._joined: deque[tuple[int, int]] = deque(maxlen=RUNS_KEPT)
        """Numbers of runs and their series, where time alone joined them."""
        self._apart_s: float | None = None
        """How long after captured positions their frames began to come, the last time."""

    def __len__(self) -> int:
        """Return how many wait for their series."""
        return len(self._waiting)

    def begin(self, began: PositionsBegan, *, former: int | None, open_series: Collection[Series], at_s: float) -> None:
        """Take in that a run begins.

        Args:
            began: the run.
            former: number of the series that has had the name that it says, with frames.
            open_series: those that have not been let go of.
            at_s: when it was announced.
        """
        self._begun += 1
        amid = any(
            one.number == former
            and one.run is not None
            and one.joiner.ending is None
            and one.run_ending in (None, Ending.NEXT_SERIES)
            for one in open_series
        )
        self._waiting[began.run] = _Run(
            began.series, self._begun, began.captured, began.total, announced_s=at_s, former=former, amid=amid
        )
        while len(self._waiting) > RUNS_KEPT:
            self._give_up(next(iter(self._waiting)))

    def add(
        self, name: str, numbers: npt.NDArray[np.int64], positions_m: npt.NDArray[np.float64], *, at_s: float
    ) -> None:
        """Take in positions that came."""
        if (known := self._series_of.get(name)) is not None:
            if not known.over:
                known.joiner.add_positions(numbers, positions_m, at_s=at_s)
            return
        run = self._waiting.get(name)
        if run is None:
            return  # of a series that is over, or of a run that was given up
        if run.samples >= self._most_samples:
            return  # a series has use for no more, and this one may never come
        run.samples += len(numbers)
        run.blocks.append(_Block(numbers, positions_m, at_s))
        if run.began_s is None:
            run.began_s = at_s

    def end(self, name: str, ending: Ending, lost: int) -> None:
        """Take in that a run is over, of which the source lost so many samples."""
        if lost:
            self._notes.append(
                f"the source of positions could not capture {lost} samples; their frames have no position"
            )
        if (known := self._series_of.get(name)) is not None:
            known.joiner.positions_over, known.run_ending = True, ending
        elif name in self._waiting:
            self._waiting[name].ending = ending

    def listen(self, now_s: float) -> None:
        """See `SeriesTable.listen`."""
        for run in self._waiting.values():
            run.listen(now_s)

    def let_go(self, series: Series) -> None:
        """Forget whose the run of a series is."""
        if series.run is not None:
            self._series_of.pop(series.run, None)

    def next_match(self, open_series: dict[str, Series], *, now_s: float) -> tuple[float, str, Series] | None:
        """Return what is to be joined first of all that is certain by now: since when it is, the run and its series."""
        due = [one for one in self._matches(open_series) if one[0] <= now_s]
        return min(due, key=lambda one: one[0], default=None)

    def join_to(self, series: Series, name: str) -> None:
        """Give a series its run of positions."""
        run = self._waiting.pop(name)
        series.run = name
        self._no_series_told = False
        if run.total is not None:
            series.most_placed = max(run.total - self._join.first_sample, 0) // self._join.samples_per_frame
        self._series_of[name] = series
        if run.series is None:
            self._joined.append((run.number, series.number))
        after_s = run.began_after_s(series)
        if run.captured and after_s is not None:
            self._apart_s = -after_s
        if run.series is None and after_s is not None:
            self._tell_far(series, after_s)
        for block in run.blocks:
            series.joiner.add_positions(block.numbers, block.positions_m, at_s=block.at_s)
        series.joiner.positions_over, series.run_ending = run.ending is not None, run.ending

    def give_up_early(self, open_series: Collection[Series], *, now_s: float) -> None:
        """Let go of positions that began too long ago for any series that is there or comes."""
        for name, run in list(self._waiting.items()):
            early = run.began_s is not None and now_s - run.began_s > self._join.begin_within_s
            first_of_name = run.series is not None and run.former is None
            awaited = first_of_name or any(one.awaits_run and self._is_near(run, one) for one in open_series)
            if early and not awaited:
                self._give_up(name)

    def leave_out_second(self, series: Series) -> None:
        """Let go of positions whose source began anew in the middle of a series: they are of none that comes later."""
        last_s = series.joiner.last_frame_s
        for name, run in list(self._waiting.items()):
            if run.amid and run.former == series.number and last_s is not None and run.announced_s <= last_s:
                self._give_up(name)

    def tell_misnamed(self, series: Series) -> None:
        """Say so where a series had no positions while some waited for one of another name."""
        if series.run is not None or series.joiner.first_frame_s is None:
            return
        waiting = sorted({run.series for run in self._waiting.values() if run.series is not None and run.blocks})
        if waiting:
            self._notes.append(
                f"no positions came for series {series.name}, while some wait for {', '.join(waiting)[:200]}; if they "
                "are its own, they must name it as the detector does, or no series at all"
            )

    def _matches(self, open_series: dict[str, Series]) -> Iterator[tuple[float, str, Series]]:
        """Yield what may be joined, and when it is certain."""
        for series in reversed(open_series.values()):
            if series.awaits_run:
                for name, run in reversed(self._waiting.items()):
                    if self._belong(run, series, open_series):
                        yield run.certain_from_s(series, wait_s=self._join.wait_s), name, series

    def _belong(self, run: _Run, series: Series, open_series: dict[str, Series]) -> bool:
        if run.series is None:
            return self._belong_by_time(run, series)
        # of a name that comes again, positions may have come late for the former series
        again = run.former is not None and run.former != series.number
        return series is _named(run.series, open_series) and (not again or self._is_near(run, series))

    def _belong_by_time(self, run: _Run, series: Series) -> bool:
        if run.began_s is None or not self._is_near(run, series):
            return False
        if any((run.number - other_run) * (series.number - other) < 0 for other_run, other in self._joined):
            return False  # an earlier run is of no later series
        if not run.captured or self._apart_s is None or series.lagged(run.began_s):
            return True
        return run.comes_with(series, self._apart_s)

    def _is_near(self, run: _Run, series: Series) -> bool:
        """Whether a run of positions and the frames of a series began near enough to each other."""
        after_s = run.began_after_s(series)
        return after_s is not None and abs(after_s) <= self._join.begin_within_s

    def _give_up(self, name: str) -> None:
        """Let go of a run of positions: what still comes of it is left out as well."""
        run = self._waiting.pop(name)
        if run.series is not None:
            why = "which did not come" if run.former is None else "which was over or had others, and did not come again"
            self._notes.append(f"positions came that name the series {run.series}, {why}; they are left out")
            return
        if not self._no_series_told:
            self._notes.append("positions came that belong to no series; they are left out")
        self._no_series_told = True

    def _tell_far(self, series: Series, after_s: float) -> None:
        """Say so where time is all that joins positions to a series, and not by much."""
        if abs(after_s) > FAR_S:
            self._notes.append(
                f"positions that began {abs(after_s):.1f} s {'after' if after_s > 0 else 'before'} the first frame of "
                f"series {series.name} are taken to be its own; if they are of another one, set "
                "source.join.begin_within_s lower"
            )


def _named(name: str, open_series: dict[str, Series]) -> Series | None:
    """Return the series of a name; of a number, the newest one that has it before a hyphen: they count anew."""
    named = open_series.get(name)
    if named is not None or not name.isdecimal():
        return named
    return next(
        (one for one in reversed(open_series.values()) if one.name.startswith(f"{name}-") and not one.over), None
    )
