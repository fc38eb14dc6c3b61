"""To which series positions belong that do not name it, whenever they come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live_scans import SCAN, SETTINGS, Script, positions_m, whole_series

from ptychoflow.acquisition.detectors import live_scan
from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
)
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.events import Unplaced

pytestmark = pytest.mark.usefixtures("together")

FIRST = SCAN.perspective(0)
FRAMES = len(FIRST)


def test_positions_of_the_next_series_do_not_go_to_one_that_lost_its_own(tmp_path: Path) -> None:
    first = [event for event in whole_series(FIRST) if isinstance(event[1], SeriesBegan | FrameCame | SeriesEnded)]
    second = whole_series(SCAN.perspective(1), series="2", run="b", begin_s=1.0)
    early = [(0.95 if isinstance(one, PositionsCame) and one.numbers[0] == 0 else at_s, one) for at_s, one in second]
    early[1] = (0.94, early[1][1])
    taken = Script(tmp_path).add_all([*first, *early]).scan().run()
    taken.assert_shows(SCAN.perspective(1), range(FRAMES))
    assert +taken.ledger.unplaced_because == {Unplaced.NO_POSITION: FRAMES}


def test_positions_of_a_series_that_nobody_saw_do_not_go_to_the_next_one(tmp_path: Path) -> None:
    lost = [event for event in whole_series(SCAN.perspective(1), run="lost") if not hasattr(event[1], "series")]
    came = whole_series(FIRST, series="2", run="b", begin_s=2.0)
    came[1] = (2.0105, came[1][1])  # the first frame comes before the run of its positions
    taken = Script(tmp_path).add_all([(0.0, PositionsBegan("lost", None)), *lost, *came]).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))


def captured(events: list[tuple[float, Arrival]]) -> list[tuple[float, Arrival]]:
    return [
        (at_s, replace(one, captured=True) if isinstance(one, PositionsBegan) else one)
        for at_s, one in events
        if not isinstance(one, PositionsEnded)  # a PandA that is killed says no end
    ]


@pytest.mark.parametrize("apart_s", [3.0, -3.0])
def test_positions_that_were_captured_while_no_frame_came_are_of_another_series(tmp_path: Path, apart_s: float) -> None:
    of_positions = PositionsBegan | PositionsCame
    usual = whole_series(FIRST)
    apart = whole_series(SCAN.perspective(1), series="2", run="b", begin_s=30.0)
    apart = [(at_s + apart_s if isinstance(one, of_positions) else at_s, one) for at_s, one in apart]
    join = {**SETTINGS["join"], "wait_s": 20.0}
    taken = Script(tmp_path).add_all(captured([*usual, *apart])).scan({"join": join}).run()
    taken.assert_shows(FIRST, range(FRAMES))
    assert len(taken.frames) == 1
    assert sum(taken.ledger.unplaced_because.values()) == FRAMES


def test_captured_positions_may_come_long_before_their_frames_if_they_always_do(tmp_path: Path) -> None:
    events = []
    for number in range(3):
        series = whole_series(SCAN.perspective(number), series=str(number), run=f"r{number}", begin_s=30.0 * number)
        events += [(at_s + 4 * isinstance(one, SeriesBegan | FrameCame | SeriesEnded), one) for at_s, one in series]
    taken = Script(tmp_path).add_all(captured(events)).scan().run()
    for number in range(3):
        taken.assert_shows(SCAN.perspective(number), range(FRAMES), which=number)


def test_captured_positions_are_those_of_a_detector_that_lags_behind(tmp_path: Path) -> None:
    """It waited for a receiver, and so still sent one series when the next one was captured."""
    lag_s, of_positions = 3.0, PositionsBegan | PositionsCame | PositionsEnded
    events = [*whole_series(FIRST, period_s=0.05), *whole_series(SCAN.perspective(1), series="2", run="b", begin_s=4.0)]
    events = [(at_s if isinstance(one, of_positions) or at_s < 1.0 else at_s + lag_s, one) for at_s, one in events]
    events = [
        (at_s, replace(one, captured=True) if isinstance(one, PositionsBegan) else one)
        for at_s, one in events
        if not isinstance(one, PositionsCame) or one.run == "b" or at_s < 1.0
    ]
    taken = Script(tmp_path).add_all(events).scan().run()
    taken.assert_shows(SCAN.perspective(1), range(FRAMES), which=1)


def test_captured_positions_are_those_of_slow_frames_that_come_later(tmp_path: Path) -> None:
    """Positions are latched when an exposure of 5 s begins."""
    events = [
        (at_s, PositionsBegan("a", None, captured=True) if isinstance(one, PositionsBegan) else one)
        for at_s, one in whole_series(FIRST, period_s=5.0)
    ]
    events = [(at_s - 4.9 if isinstance(one, PositionsCame) else at_s, one) for at_s, one in events]
    taken = Script(tmp_path).add_all(events).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))


def test_an_earlier_run_of_positions_is_of_no_later_series(tmp_path: Path) -> None:
    """The first run is of a series that nobody saw; the last series has no positions."""
    lost = [event for event in whole_series(SCAN.perspective(2), run="lost") if not hasattr(event[1], "series")]
    both = whole_series(FIRST, series="2", run="b", begin_s=2.0)
    alone = [
        event
        for event in whole_series(SCAN.perspective(1), series="3", begin_s=4.0)
        if isinstance(event[1], SeriesBegan | FrameCame | SeriesEnded)
    ]
    taken = Script(tmp_path).add_all([(0.0, PositionsBegan("lost", None)), *lost, *both, *alone]).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))
    assert len(taken.frames) == 1
    assert sum(taken.ledger.unplaced_because.values()) == FRAMES


def test_positions_wait_for_a_nearer_series_even_if_the_last_one_has_no_end(tmp_path: Path) -> None:
    """A detector that is aborted says nothing, and the first position may come before the first frame."""
    first = [event for event in whole_series(FIRST) if isinstance(event[1], SeriesBegan | FrameCame)]
    second = whole_series(SCAN.perspective(1), series="2", run="b", begin_s=0.8)
    second = [(at_s - 0.05 if isinstance(one, PositionsBegan | PositionsCame) else at_s, one) for at_s, one in second]
    taken = Script(tmp_path).add_all([*first, *second]).scan().run()
    taken.assert_shows(SCAN.perspective(1), range(FRAMES))
    assert sum(taken.ledger.unplaced_because.values()) == FRAMES


@pytest.mark.parametrize("at_once", [1, 1000])
def test_positions_go_to_the_same_series_whether_it_is_read_as_it_comes_or_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """A series that lost its positions and is over takes none of the next one, whose first frames were lost."""
    monkeypatch.setattr(live_scan, "MESSAGES_AT_ONCE", at_once)
    first = [event for event in whole_series(FIRST) if isinstance(event[1], SeriesBegan | FrameCame | SeriesEnded)]
    second = whole_series(SCAN.perspective(1), series="2", run="b", begin_s=4.0, period_s=0.1)
    second = [(at_s, one) for at_s, one in second if not isinstance(one, FrameCame) or one.number > 13]
    second = [(5.41 if isinstance(one, SeriesBegan) else at_s, one) for at_s, one in second]
    taken = Script(tmp_path).add_all([*first, *second]).scan().run()
    taken.assert_shows(SCAN.perspective(1), range(14, FRAMES))
    assert +taken.ledger.unplaced_because == {Unplaced.NO_POSITION: FRAMES}


def test_positions_that_came_before_all_frames_of_their_series_are_its_own(tmp_path: Path) -> None:
    events = [
        (at_s + (0.0 if isinstance(one, PositionsBegan | PositionsCame | PositionsEnded) else 5.0), one)
        for at_s, one in whole_series(FIRST)
    ]
    Script(tmp_path).add_all(events).scan().run().assert_shows(FIRST, range(FRAMES))


def test_positions_that_name_their_series_go_there_whenever_they_come(tmp_path: Path) -> None:
    table = PositionsCame("t", np.arange(FRAMES), positions_m(FIRST, range(FRAMES)))
    early = [(0.0, PositionsBegan("t", "1", FRAMES)), (0.0, table), (0.0, PositionsEnded("t", Ending.COMPLETE))]
    frames = [(at_s + 500.0, one) for at_s, one in whole_series(FIRST) if isinstance(one, FrameCame | SeriesBegan)]
    events = [*early, *frames, (600.0, SeriesEnded("1", Ending.COMPLETE))]
    script = Script(tmp_path).add_all(events)
    script.scan().run().assert_shows(FIRST, range(FRAMES))
    known = next(one for one in script.scan().scan.arriving() if one is not None).known_positions_px
    np.testing.assert_allclose(known, FIRST.positions_px)


def named(events: list[tuple[float, Arrival]], series: str) -> list[tuple[float, Arrival]]:
    return [(at_s, replace(one, series=series) if isinstance(one, PositionsBegan) else one) for at_s, one in events]


def test_positions_may_name_the_number_of_a_series_and_go_to_the_newest_of_it(tmp_path: Path) -> None:
    """A detector that is started again counts anew, and so adds to the number what tells its series apart."""
    without_end = [event for event in whole_series(FIRST, series="7-01A") if not isinstance(event[1], SeriesEnded)]
    alone = [event for event in without_end if isinstance(event[1], SeriesBegan | FrameCame)]
    again = named(whole_series(SCAN.perspective(1), series="7-01B", run="b", begin_s=1.0), "7")
    late = [(at_s + isinstance(one, PositionsBegan | PositionsCame | PositionsEnded), one) for at_s, one in again]
    taken = Script(tmp_path).add_all([*alone, *late]).scan().run()
    taken.assert_shows(SCAN.perspective(1), range(FRAMES))
    assert +taken.ledger.unplaced_because == {Unplaced.NO_POSITION: FRAMES}


@pytest.mark.parametrize("name", ["8", "7-01", "scan"])
def test_positions_that_name_a_series_that_is_not_there_are_told(tmp_path: Path, name: str) -> None:
    wrong = named(whole_series(FIRST, series="scan-7"), name)
    right = whole_series(SCAN.perspective(1), series="2", run="b", begin_s=30.0)
    taken = Script(tmp_path).add_all([*wrong, *right]).scan().run()
    taken.assert_shows(SCAN.perspective(1), range(FRAMES))
    (told,) = [text for text in taken.warnings if "no positions came for series scan-7" in text]
    assert f"some wait for {name}; " in told


def test_positions_that_are_given_up_are_told_with_the_series_that_they_name(tmp_path: Path) -> None:
    names = [f"never {number}" for number in range(20)]
    never = [(0.1 * place, PositionsBegan(name, name)) for place, name in enumerate(names)]
    taken = Script(tmp_path).add_all([*never, *whole_series(FIRST, begin_s=30.0)]).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))
    told = [text for text in taken.warnings if "which did not come" in text]
    assert [text.split(",")[0].removeprefix("positions came that name the series ") for text in told] == names[:5]
