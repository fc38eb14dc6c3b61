"""Runs of positions that name no series: every position goes to its own frame, whichever side is away meanwhile."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    PositionsKnown,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.series_table import SeriesTable
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.events import Unplaced

SERIES = 40
PAUSES_S = (0.2, 1.5)
AWAY_S = (1.0, 5.0)
KILLED, ABORTED = 0.15, 0.1
BOTH_BACK_S = 3.0

Event = tuple[float, Arrival]


class Beamline:
    """Series after series; one side at a time is killed in the middle of one and away for a while."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._period_s, self._frames = self._random.choice([0.01, 0.05]), self._random.choice([20, 60])
        self._back_s = {"detector": 0.0, "positions": 0.0}

    def events(self) -> list[Event]:
        """Return what arrives of the whole beamtime, in order."""
        events, begin_s = [], 0.0
        for number in range(SERIES):
            begin_s += self._random.uniform(*PAUSES_S)
            aborted = self._random.random() < ABORTED
            sent = self._frames // 2 if aborted else self._frames
            killed = self._killed(begin_s)
            for side, made in (("detector", self._frames_of), ("positions", self._positions_of)):
                late_s = begin_s + self._random.uniform(-0.02, 0.05)
                if begin_s >= self._back_s[side]:
                    cut = self._random.randrange(sent) if side == killed else None
                    events += made(number, late_s, sent if cut is None else cut, ends=cut is None, aborted=aborted)
                    if cut is not None:
                        self._back_s[side] = begin_s + cut * self._period_s + self._random.uniform(*AWAY_S)
            begin_s += sent * self._period_s
        return sorted(events, key=lambda event: event[0])

    def _killed(self, begin_s: float) -> str | None:
        both = begin_s > max(self._back_s.values()) + BOTH_BACK_S
        return self._random.choice(list(self._back_s)) if both and self._random.random() < KILLED else None

    def _frames_of(self, number: int, begin_s: float, frames: int, *, ends: bool, aborted: bool) -> Iterator[Event]:
        """Yield a series; a detector that is aborted says nothing of it."""
        yield begin_s, SeriesBegan(f"s{number}", SeriesHeader())
        for index in range(frames):
            yield begin_s + (index + 1) * self._period_s, FrameCame(f"s{number}", index, (number, index))
        if ends and not aborted:
            yield begin_s + (frames + 1) * self._period_s, SeriesEnded(f"s{number}", Ending.COMPLETE)

    def _positions_of(self, number: int, begin_s: float, frames: int, *, ends: bool, aborted: bool) -> Iterator[Event]:
        yield begin_s, PositionsBegan(f"r{number}", None, captured=True)
        for index in range(frames):
            place = np.array([[float(number), float(index)]])
            yield begin_s + (index + 1) * self._period_s, PositionsCame(f"r{number}", np.array([index]), place)
        if ends:
            ending = Ending.ABORTED if aborted else Ending.COMPLETE
            yield begin_s + (frames + 1) * self._period_s, PositionsEnded(f"r{number}", ending)


def placed(events: list[Event]) -> Counter[tuple[object, tuple[float, float]]]:
    """Return frames with the positions that they were given."""
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
    found: Counter[tuple[object, tuple[float, float]]] = Counter()
    for at_s, arrival in events:
        table.apply(arrival, at_s=at_s)
        while (first := table.first) is not None and (first.over or first.joiner.placed):
            while first.joiner.placed:
                frame = first.joiner.placed.take(1)
                found[frame.images[0], frame.positions_m[0]] += 1
            if first.over:
                table.let_go(first)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_gets_its_own_position_though_one_side_is_away_now_and_then(seed: int) -> None:
    events = Beamline(seed).events()
    events.append((events[-1][0] + 100.0, SeriesEnded("none", Ending.COMPLETE)))
    frames = {one.image for _, one in events if isinstance(one, FrameCame)}
    sent = {tuple(one.positions_m[0].tolist()) for _, one in events if isinstance(one, PositionsCame)}
    expected = Counter((frame, frame) for frame in frames & sent)
    assert expected.total() < len(frames | sent), "nobody was away"
    assert placed(events) == expected


def test_positions_without_a_series_take_bounded_memory_and_are_told_once() -> None:
    """A box that captures while the detector is off, or while a scan is aligned."""
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
    tracemalloc.start()
    try:
        for run in range(3):
            table.apply(PositionsBegan(f"r{run}", None, captured=True), at_s=100.0 * run)
            for block in range(1000):
                numbers = np.arange(1000 * block, 1000 * (block + 1))
                table.apply(PositionsCame(f"r{run}", numbers, np.zeros((1000, 2))), at_s=100.0 * run + 0.1 * block)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * 100_000 * 24, "what comes within ten seconds, and a bit"
    assert list(table.notes) == ["positions came that belong to no series; they are left out"]
    began_s = 400.0
    table.apply(PositionsBegan("own", None, captured=True), at_s=began_s)
    table.apply(PositionsCame("own", np.arange(2), np.ones((2, 2))), at_s=began_s)
    for number in range(2):
        table.apply(FrameCame("s", number, number), at_s=began_s + 9.0 + number)
    table.pass_time(began_s + 12.0)
    assert table.first is not None
    assert len(table.first.joiner.placed) == 2


def test_positions_that_name_a_series_that_never_comes_take_bounded_memory() -> None:
    join = JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1, most_frames=10_000)
    table = SeriesTable(join, idle_s=60.0)
    table.apply(PositionsBegan("r", "misspelt"), at_s=0.0)
    tracemalloc.start()
    try:
        for block in range(1000):
            table.apply(PositionsCame("r", np.arange(1000 * block, 1000 * (block + 1)), np.zeros((1000, 2))), at_s=1.0)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * 10_000 * 24, "what a series may have, and a bit"
    table.apply(SeriesBegan("misspelt", SeriesHeader()), at_s=2.0)
    table.apply(FrameCame("misspelt", 9_999, 0), at_s=2.0)
    table.pass_time(2.1)
    assert table.first is not None
    assert len(table.first.joiner.placed) == 1


def test_series_of_one_name_that_wait_to_be_read_stay_apart() -> None:
    """A detector that is started anew for every scan counts from 1 again; a resume reads them all at once."""
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
    table.apply(PositionsKnown(np.arange(2), np.zeros((2, 2))), at_s=0.0)
    for number in range(4):
        table.apply(SeriesBegan("1", SeriesHeader()), at_s=1.0 + number)
        for index in range(2):
            table.apply(FrameCame("1", index, (number, index)), at_s=1.0 + number)
        table.apply(SeriesEnded("1", Ending.COMPLETE), at_s=1.0 + number)
    table.pass_time(100.0)
    read = []
    while (first := table.first) is not None:
        assert first.over
        read += list(first.joiner.placed.take(2).images)
        table.let_go(first)
    assert read == [(number, index) for number in range(4) for index in range(2)]


@pytest.mark.parametrize("next_series", [False, True])
def test_a_clock_that_is_set_back_between_two_receivers_holds_nothing_up(next_series: bool) -> None:
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
    table.apply(SeriesBegan("1", SeriesHeader()), at_s=5000.0)
    for index in range(3):
        table.apply(FrameCame("1", index, index), at_s=5000.0 + 0.1 * index)
    back_s = 1000.0
    table.listen(back_s)
    if next_series:
        table.apply(SeriesBegan("2", SeriesHeader()), at_s=back_s + 1.0)
    table.pass_time(back_s + 1.5)
    first = table.first
    assert first is not None
    assert not first.over
    assert not first.joiner.unplaced, "they wait for two seconds"
    table.pass_time(back_s + 62.5)
    assert first.over
    assert first.joiner.unplaced == {Unplaced.NO_POSITION: 3}


@pytest.mark.parametrize("ended", [False, True])
def test_frames_do_not_wait_for_their_positions_while_nobody_listens(ended: bool) -> None:
    """Their source may say them again to the next receiver, which is asked for as long as any other."""
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1, wait_s=2.0), idle_s=60.0)
    said: list[Arrival] = [SeriesBegan("1", SeriesHeader()), *(FrameCame("1", index, index) for index in range(3))]
    said += [PositionsBegan("r", "1"), PositionsCame("r", np.arange(2), np.ones((2, 2)))]
    said += [SeriesEnded("1", Ending.COMPLETE)] if ended else []
    for arrival in said:
        table.apply(arrival, at_s=10.0)
    table.listen(40.0)
    table.pass_time(41.9)
    series = table.first
    assert series is not None
    assert not series.joiner.unplaced
    table.apply(PositionsCame("r", np.array([2]), np.ones((1, 2))), at_s=41.95)
    assert len(series.joiner.placed) == 3
    assert series.joiner.placed.take(3).received_at_s == [10.0, 10.0, 10.0], "when they came is kept"


def test_frames_whose_positions_the_next_receiver_does_not_bring_are_given_up() -> None:
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1, wait_s=2.0), idle_s=60.0)
    for arrival in (SeriesBegan("1", SeriesHeader()), FrameCame("1", 0, 0), SeriesEnded("1", Ending.COMPLETE)):
        table.apply(arrival, at_s=10.0)
    table.listen(40.0)
    series = table.first
    assert series is not None
    table.pass_time(42.0)
    assert series.joiner.unplaced == {Unplaced.NO_POSITION: 1}
    assert series.over


@pytest.mark.parametrize("frames_come_first", [False, True])
def test_positions_are_joined_across_a_clock_that_is_set_back_between_two_receivers(frames_come_first: bool) -> None:
    """They are joined by when they began, which must be near, and for certain only some time later."""
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
    frames = [SeriesBegan("1", SeriesHeader()), *(FrameCame("1", index, index) for index in range(3))]
    positions = [PositionsBegan("r", None, captured=True), PositionsCame("r", np.arange(3), np.ones((3, 2)))]
    first, second = (frames, positions) if frames_come_first else (positions, frames)
    for arrival in first:
        table.apply(arrival, at_s=5000.0)
    for arrival in second[:2]:
        table.apply(arrival, at_s=5000.9)
    back_s = 1000.0
    table.listen(back_s)
    for arrival in second[2:]:
        table.apply(arrival, at_s=back_s + 0.1)
    table.pass_time(back_s + 5.0)
    series = table.first
    assert series is not None
    assert len(series.joiner.placed) == 3
    assert not series.joiner.unplaced
    table.pass_time(back_s + 61.0)
    assert series.joiner.ending is Ending.STALLED


def said_of(series: str, run: str, at: float, *, begin_s: float) -> list[Event]:
    """Return two frames of a series and their positions, which name it, both at `at`."""
    return [
        (begin_s, PositionsBegan(run, series)),
        (begin_s + 0.1, SeriesBegan(series, SeriesHeader())),
        *((begin_s + 0.2, FrameCame(series, index, (at, index))) for index in range(2)),
        (begin_s + 0.3, PositionsCame(run, np.arange(2), np.full((2, 2), at))),
        (begin_s + 0.4, PositionsEnded(run, Ending.COMPLETE)),
        (begin_s + 0.4, SeriesEnded(series, Ending.COMPLETE)),
    ]


@pytest.mark.parametrize("name", ["scan", "1"])
@pytest.mark.parametrize("late_s", [4.0, 30.0])
def test_positions_that_come_too_late_for_their_series_are_not_those_of_the_next_one_of_its_name(
    name: str, late_s: float
) -> None:
    """A detector that is started again counts from 1 again. The next series begins at 5000 s."""
    former, again = (name, name) if name == "scan" else (f"{name}-a", f"{name}-b")
    events: list[Event] = [
        (10.0, SeriesBegan(former, SeriesHeader())),
        *((10.0, FrameCame(former, index, (1.0, index))) for index in range(2)),
        (10.0, SeriesEnded(former, Ending.COMPLETE)),
        (10.0 + late_s, PositionsBegan("late", name)),
        (10.0 + late_s, PositionsCame("late", np.arange(2), np.ones((2, 2)))),
    ]
    own = said_of(again, "own", 2.0, begin_s=5000.0)
    # frames come before their positions: what waits would be taken at once
    events += [own[1], *own[2:4], (5000.25, PositionsBegan("own", name)), *own[4:]]
    events.append((6000.0, SeriesEnded("none", Ending.COMPLETE)))
    assert placed(events) == Counter({((2.0, index), (2.0, 2.0)): 1 for index in range(2)})


def test_positions_that_began_anew_amid_a_series_are_not_those_of_the_next_one_of_its_name() -> None:
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
    events = said_of("1", "first", 1.0, begin_s=10.0)
    events[5:] = [  # as a sender says it that is started again
        (10.4, PositionsEnded("first", Ending.NEXT_SERIES)),
        (10.4, PositionsBegan("second", "1")),
        (10.4, PositionsCame("second", np.arange(2), np.ones((2, 2)))),
        (10.5, FrameCame("1", 2, (1.0, 2))),
        (10.6, SeriesEnded("1", Ending.COMPLETE)),
    ]
    own = said_of("1", "own", 2.0, begin_s=11.0)
    for at_s, arrival in [*events, *own[1:4], own[0], *own[4:]]:
        table.apply(arrival, at_s=at_s)
    table.pass_time(20.0)
    assert list(table.notes) == [
        "positions came that name the series 1, which was over or had others, and did not come again; they are left out"
    ]
    while (first := table.first) is not None:
        taken = first.joiner.placed.take(2)
        table.let_go(first)
    assert taken.images == [(2.0, 0), (2.0, 1)]
    assert taken.positions_m == [(2.0, 2.0), (2.0, 2.0)]


def test_positions_that_come_before_a_series_whose_name_was_there_are_its_own() -> None:
    events = [event for number in range(4) for event in said_of("1", f"r{number}", number, begin_s=10.0 + number)]
    events.append((100.0, SeriesEnded("none", Ending.COMPLETE)))
    expected = Counter({((number, index), (number, number)): 1 for number in range(4) for index in range(2)})
    assert placed(events) == expected
