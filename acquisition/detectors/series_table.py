"""The series of a live scan: which arrivals belong to which, and when each is over."""

from __future__ import annotations

from collections import Counter, deque

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
from ptychoflow.acquisition.detectors.runs_of_positions import RunsOfPositions
from ptychoflow.acquisition.detectors.series import Series
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.events import Unplaced

FINISHED_KEPT = 1000
MALFORMED_TOLD = 20


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
        self._finished: dict[str, int | None] = {}
        """The numbers of series that were let go of; None where no frame came."""
        self._runs = RunsOfPositions(join, self.notes)
        self._newest: SeriesJoiner | None = None
        """Of the series that began last."""
        self._series_begun = 0

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
        if self._runs and any(one.awaits_run for one in self._open.values()):
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
                former = None if arrival.series is None else self._number_of(arrival.series)
                self._runs.begin(arrival, former=former, open_series=self._open.values(), at_s=at_s)
            case PositionsCame(run=run, numbers=numbers, positions_m=positions_m):
                self._runs.add(run, numbers, positions_m, at_s=at_s)
            case PositionsEnded(run=run, ending=ending, lost=lost):
                self._runs.end(run, ending, lost)
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
                series.over_told = True
                self._runs.tell_misnamed(series)
                self._runs.leave_out_second(series)
            if series.over and series.joiner.first_frame_s is None:
                self.let_go(series)
        self._runs.give_up_early(self._open.values(), now_s=now_s)

    def listen(self, now_s: float) -> None:
        """Take in that a receiver listens from now on: nobody knows whether sources were silent before.

        Its clock may have been set back since the receiver before: nothing that came then came later than now.
        """
        if self.last_arrival_s is not None:
            self.last_arrival_s = now_s
        for series in self._open.values():
            series.listen(now_s)
        self._runs.listen(now_s)

    def let_go(self, series: Series) -> None:
        """Forget a series: what still comes of it is late."""
        self._open.pop(series.name, None)
        self._finished[series.name] = series.number_if_seen
        if len(self._finished) > FINISHED_KEPT:
            del self._finished[next(iter(self._finished))]
        self._runs.let_go(series)

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
            self._runs.leave_out_second(former)
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

    def _match(self, now_s: float) -> None:
        """Join runs and series of which it is certain by now, one after the other, as if it had been done in time."""
        while (due := self._runs.next_match(self._open, now_s=now_s)) is not None:
            certain_s, name, series = due
            series.joiner.give_up(now_s=certain_s, idle_s=self._idle_s)
            series.over |= series.joiner.finished(now_s=certain_s)
            if not series.over:
                self._runs.join_to(series, name)

    def _number_of(self, name: str) -> int | None:
        """Return the number of the newest series that positions name and of which frames came, over or not."""
        numbers = {one.name: one.number_if_seen for one in self._open.values()}
        known = self._finished | numbers
        if name in known or not name.isdecimal():
            return known.get(name)
        return max((number for one, number in known.items() if number and one.startswith(f"{name}-")), default=None)


def _frames_s(joiner: SeriesJoiner) -> tuple[float, float] | None:
    """Return when the first and the last frame came."""
    first_s, last_s = joiner.first_frame_s, joiner.last_frame_s
    return None if first_s is None or last_s is None else (first_s, last_s)
