"""Live scans: what came together is placed, what did not is counted, whatever the order, and every series ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live_scans import HEADER, SCAN, SETTINGS, PlainImage, Script, frame, positions, positions_m, whole_series
from pydantic import ValidationError

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    PositionsKnown,
    SeriesBegan,
    SeriesEnded,
)
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.events import Missing, Unplaced

pytestmark = pytest.mark.usefixtures("together")

FIRST = SCAN.perspective(0)
FRAMES = len(FIRST)


def test_a_series_is_the_perspective_that_was_sent(tmp_path: Path) -> None:
    taken = Script(tmp_path).add_all(whole_series(FIRST)).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))
    assert taken.endings == [Ending.COMPLETE]
    assert not taken.ledger.unplaced_because
    assert not taken.ledger.missing_because


@pytest.mark.parametrize("seed", range(12))
def test_shuffled_delayed_repeated_and_lost(tmp_path: Path, seed: int) -> None:
    """Every frame and every position is lost, repeated and delayed by chance, up to what is waited for."""
    random = np.random.default_rng(seed)
    events = [(0.0, SeriesBegan("1", HEADER)), (0.0, PositionsBegan("a", None))]
    came: dict[str, set[int]] = {"frame": set(), "position": set()}
    for trigger in range(FRAMES):
        for kind, make in (("frame", frame), ("position", lambda one, t: positions(one, [t]))):
            copies = random.choice([0, 1, 1, 1, 1, 2])
            delays_s = random.uniform(0, 1.8, copies)
            events += [(0.01 * trigger + delay_s, make(FIRST, trigger)) for delay_s in delays_s]
            came[kind] |= {trigger} if copies else set()
    end_s = max(at_s for at_s, _ in events)
    events += [(end_s, SeriesEnded("1", Ending.COMPLETE)), (end_s, SeriesEnded("1", Ending.COMPLETE))]
    taken = Script(tmp_path).add_all(events).scan().run()
    taken.assert_shows(FIRST, came["frame"] & came["position"])
    highest = max(came["frame"])
    never = set(range(highest + 1)) - came["frame"]
    only_positions = {trigger for trigger in came["position"] - came["frame"] if trigger > highest}
    assert taken.ledger.unplaced_because[Unplaced.NO_POSITION] == len(came["frame"] - came["position"])
    assert taken.ledger.missing_because[Missing.GAP] == len(never)
    assert taken.ledger.missing_because[Missing.POSITION_ONLY] == len(only_positions)


@pytest.mark.parametrize("seed", range(3))
def test_a_scan_that_is_resumed_at_any_place_is_the_same(tmp_path: Path, seed: int) -> None:
    """Read in one go, and read as it grew with an acquisition that looked again and again."""
    random = np.random.default_rng(seed)
    events = []
    for number in range(3):
        begin_s = 20.0 * number
        events += whole_series(SCAN.perspective(number), series=str(number), run=f"r{number}", begin_s=begin_s)
    events = [event for event in events if random.random() > 0.1 or not isinstance(event[1], FrameCame)]
    script = Script(tmp_path).add_all(events)
    first, second = script.scan().run(batch_frames=8), script.scan().run(batch_frames=3)
    assert [sorted(frames) for frames in first.frames] == [sorted(frames) for frames in second.frames]
    assert first.endings == second.endings == [Ending.COMPLETE] * 3
    assert first.ledger.missing_because == second.ledger.missing_because


def any_events(random: np.random.Generator) -> Iterator[tuple[float, Arrival]]:
    """Yield series in batches of frames, with positions that come early, late or never, and any ending."""
    at_s = 1.0
    for number in range(3):
        series, run = str(number), f"r{number}"
        maybe = [
            (0.9, at_s, SeriesBegan(series, HEADER)),
            (0.95, at_s + random.choice([0.0, 0.5]), PositionsBegan(run, random.choice([None, series]))),
        ]
        late_s = random.choice([-0.2, 0.0, 0.001, 0.5, 3.0])
        for first in range(0, FRAMES, 7):
            triggers = range(first, min(first + 7, FRAMES))
            step_s = random.choice([0.0, 0.001, 0.05])
            maybe += [(0.97, at_s + step_s * (one - first), frame(FIRST, one, series)) for one in triggers]
            places = positions(FIRST, triggers, run)
            places.positions_m[random.random(len(triggers)) < 0.03] = np.nan
            maybe.append((0.95, at_s + late_s, places))
            at_s += random.choice([0.0, 0.01, 0.4, 2.5], p=[0.2, 0.6, 0.17, 0.03])
            maybe.append((0.05, at_s, frame(FIRST, int(random.integers(FRAMES)), series)))
        maybe.append((0.7, at_s, SeriesEnded(series, random.choice([Ending.COMPLETE, Ending.ABORTED]))))
        maybe.append((0.7, at_s + random.choice([0.0, 0.5]), PositionsEnded(run, Ending.COMPLETE)))
        at_s += random.choice([0.0, 0.1, 4.0])
        yield from ((when_s, one) for chance, when_s, one in maybe if random.random() < chance)


@pytest.mark.parametrize("seed", range(40))
def test_frames_that_come_together_are_decided_about_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    events, outcomes = list(any_events(np.random.default_rng(seed))), []
    geometry = {"energy_eV": 8800.0, "detector_distance_m": 1.5, "detector_pixel_size_m": 75e-6}
    for at_once in (1, 20, 500):
        monkeypatch.setattr(Script, "together", at_once)
        script = Script(tmp_path / str(at_once)).add_all(events)
        outcomes.append(script.scan({"idle_s": 3.0, "geometry": geometry, "look_again": False}).run())
    first, *others = outcomes
    for other in others:
        assert [list(frames) for frames in other.frames] == [list(frames) for frames in first.frames]
        assert other.endings == first.endings
        assert other.ledger.unplaced_because == first.ledger.unplaced_because
        assert other.ledger.missing_because == first.ledger.missing_because
        assert sorted(other.warnings) == sorted(first.warnings)
        for mine, its in zip(other.positions_px, first.positions_px, strict=True):
            assert all(np.array_equal(mine[trigger], its[trigger]) for trigger in its)


def test_origins_and_samples_per_frame_are_those_that_are_set(tmp_path: Path) -> None:
    events = [(0.0, SeriesBegan("1", HEADER)), (0.0, PositionsBegan("a", None))]
    spread_m = np.array([[-3e-9, 1e-9], [0.0, -2e-9], [3e-9, 1e-9]])
    for trigger in range(FRAMES):
        at_s = 0.01 * (trigger + 1)
        shifted = FrameCame("1", trigger + 100, PlainImage(FIRST.read(trigger, trigger + 1)[0]))
        events.append((at_s, shifted))
        middle_m = positions_m(FIRST, [trigger])
        for sample in range(3):
            number = np.array([7 + 3 * trigger + sample])
            events.append((at_s, PositionsCame("a", number, middle_m + spread_m[sample])))
    events.append((0.0, PositionsCame("a", np.array([5, 6]), np.array([[1.0, 1.0], [2.0, 2.0]]))))
    events.append((1.0, SeriesEnded("1", Ending.COMPLETE)))
    join = {"first_frame": 100, "first_sample": 7, "samples_per_frame": 3}
    Script(tmp_path).add_all(events).scan({"join": join}).run().assert_shows(FIRST, range(FRAMES))


@pytest.mark.parametrize(
    ("join", "unplaced", "missing"),
    [
        ({"first_sample": 2}, 1, 0),
        ({"first_sample": 0}, 1, 1),
        ({"first_frame": 2}, 0, 1),
        ({"first_frame": 0}, 1, 1),
        ({"samples_per_frame": 4}, FRAMES - FRAMES // 4, 0),
        ({"begin_within_s": 1e-6}, FRAMES, 0),
    ],
)
def test_a_wrong_origin_shows_in_the_ledger_as_the_manual_says(
    tmp_path: Path, join: dict[str, float], unplaced: int, missing: int
) -> None:
    counted_from_1 = [(at_s, _with_next_numbers(arrival)) for at_s, arrival in whole_series(FIRST)]
    right = {**SETTINGS["join"], "first_frame": 1, "first_sample": 1}
    taken = Script(tmp_path).add_all(counted_from_1).scan({"join": {**right, **join}}).run()
    assert sum(taken.ledger.unplaced_because.values()) == unplaced
    assert sum(taken.ledger.missing_because.values()) == missing


def _with_next_numbers(arrival: Arrival) -> Arrival:
    match arrival:
        case FrameCame(number=number):
            return replace(arrival, number=number + 1)
        case PositionsCame(numbers=numbers):
            return replace(arrival, numbers=numbers + 1)
    return arrival


@pytest.mark.parametrize("key", ["first_frame", "first_sample"])
def test_nothing_is_numbered_below_0(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        JoinSettings.model_validate({**SETTINGS["join"], key: -1})


@pytest.mark.parametrize(("apart_s", "side"), [(0.8, None), (-0.8, None), (3.0, "after"), (-3.0, "before")])
def test_positions_that_are_joined_by_time_alone_and_begin_far_apart_are_told(
    tmp_path: Path, apart_s: float, side: str | None
) -> None:
    moved = PositionsBegan | PositionsCame | PositionsEnded
    events = [(at_s + apart_s + 5 if isinstance(one, moved) else at_s + 5, one) for at_s, one in whole_series(FIRST)]
    script = Script(tmp_path).add_all(sorted(events, key=lambda event: event[0]))
    taken = script.scan({"join": {**SETTINGS["join"], "wait_s": 10.0}}).run()
    taken.assert_shows(FIRST, range(FRAMES))
    told = [text for text in taken.warnings if "taken to be its own" in text]
    assert len(told) == (side is not None)
    assert all(f"positions that began 3.0 s {side} the first frame of series 1" in text for text in told)


def test_every_way_to_end(tmp_path: Path) -> None:
    """Aborted; ended by the next one without a word; stalled."""
    events = []
    for number, ending in enumerate((Ending.ABORTED, None, None)):
        part = whole_series(FIRST, series=str(number), run=f"r{number}", begin_s=30.0 * number)
        part = [event for event in part if not isinstance(event[1], SeriesEnded | PositionsEnded)]
        events += part if number else part[: len(part) - 20]
        if ending is not None:
            events.append((part[-1][0] + 0.1, SeriesEnded(str(number), ending)))
    taken = Script(tmp_path).add_all(events).scan({"idle_s": 40.0}).run()
    assert taken.endings == [Ending.ABORTED, Ending.NEXT_SERIES, Ending.STALLED]
    assert [len(frames) for frames in taken.frames] == [29, FRAMES, FRAMES]
    assert taken.ledger.unplaced_because == {Unplaced.NO_POSITION: 20}


def test_a_series_may_begin_before_the_last_is_done(tmp_path: Path) -> None:
    first = [(at_s, one) for at_s, one in whole_series(FIRST, period_s=0.02) if not isinstance(one, SeriesEnded)]
    second = whole_series(SCAN.perspective(1), series="2", run="b", begin_s=0.7)
    taken = Script(tmp_path).add_all([*first, *second]).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))
    taken.assert_shows(SCAN.perspective(1), range(FRAMES), which=1)


def test_frames_are_told_with_the_time_of_day_at_which_they_came(tmp_path: Path) -> None:
    scan = Script(tmp_path).add_all(whole_series(SCAN.perspective(0))).scan({"perspectives": 1}).scan
    assert scan is not None
    scan.time_of_day_s = lambda at_s: at_s + 3600.0
    with closing(scan):
        (times_s,) = [
            [batch.acquired_at_s for batch in perspective.batches(8) if batch is not None]
            for perspective in scan.arriving()
            if perspective is not None
        ]
    assert times_s == sorted(times_s)
    assert times_s[-1] == pytest.approx(3600.0 + 0.01 * len(SCAN.perspective(0)))


def test_a_silence_in_which_nobody_listened_ends_no_series(tmp_path: Path) -> None:
    """The acquisition was away for longer than a series may be silent, and what came meanwhile is missing."""
    events = whole_series(FIRST, begin_s=0.0)
    later = [(at_s + 500.0, one) for at_s, one in events if at_s > 0.4]
    script = Script(tmp_path).listen(-1.0).add_all([event for event in events if event[0] < 0.3])
    taken = script.listen(500.2).add_all(later).scan({"idle_s": 5.0, "end_after_idle_s": 10.0}).run()
    assert taken.endings == [Ending.COMPLETE]
    (frames,) = taken.frames
    lost = set(range(FRAMES)) - set(frames)
    assert 8 <= len(lost) <= 12
    taken.assert_shows(FIRST, sorted(frames))
    assert taken.ledger.missing_because[Missing.GAP] + taken.ledger.unplaced_because[Unplaced.NO_POSITION] == len(lost)


def test_a_silence_before_the_receiver_stopped_counts(tmp_path: Path) -> None:
    """What had stalled while somebody listened has stalled as well for who reads it again."""
    events = whole_series(FIRST)
    script = Script(tmp_path).add_all([event for event in events if event[0] < 0.3]).stop(50.0).listen(60.0)
    taken = script.add_all([(at_s + 60.0, one) for at_s, one in events if at_s > 0.3]).scan({"idle_s": 5.0}).run()
    assert taken.endings == [Ending.STALLED]
    assert taken.ledger.unplaced_because[Unplaced.LATE] > 15


@pytest.mark.parametrize("stray_m", [1.0, np.inf, -1e300])
@pytest.mark.parametrize("trigger", [3, 40])
def test_a_position_that_cannot_be_places_nothing_and_does_no_harm(
    tmp_path: Path, trigger: int, stray_m: float
) -> None:
    stray = PositionsCame("a", np.array([trigger]), np.array([[stray_m, 0.0]]))
    events = [
        (at_s, stray if isinstance(one, PositionsCame) and one.numbers[0] == trigger else one)
        for at_s, one in whole_series(FIRST)
    ]
    taken = Script(tmp_path).add_all(events).scan().run()
    taken.assert_shows(FIRST, sorted(set(range(FRAMES)) - {trigger}))
    assert taken.ledger.unplaced_because == {Unplaced.NO_POSITION: 1}
    told = "perspective 0: 1 frames are left out, for their positions lie far from all others"
    assert (told in taken.warnings) == np.isfinite(stray_m)


def test_series_of_an_alignment_are_skipped(tmp_path: Path) -> None:
    events = [*whole_series(FIRST), *whole_series(SCAN.perspective(1), series="2", run="b", begin_s=30.0)]
    taken = Script(tmp_path).add_all(events).scan({"skipped_series": 1}).run()
    taken.assert_shows(SCAN.perspective(1), range(FRAMES))
    assert len(taken.frames) == 1
    assert taken.ledger.unplaced_because == {Unplaced.SERIES_UNUSABLE: FRAMES}


def test_a_detector_that_was_started_again_may_use_a_number_twice(tmp_path: Path) -> None:
    again = whole_series(SCAN.perspective(1), series="1", run="b", begin_s=30.0)
    taken = Script(tmp_path).add_all([*whole_series(FIRST), *again]).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))
    taken.assert_shows(SCAN.perspective(1), range(FRAMES), which=1)


def test_frames_of_a_series_that_is_over_are_late(tmp_path: Path) -> None:
    stray = [(20.0 + t, frame(FIRST, t)) for t in range(4)]
    events = [(at_s, one) for at_s, one in whole_series(FIRST) if not isinstance(one, FrameCame) or one.number > 3]
    taken = Script(tmp_path).add_all([*events, *stray]).scan().run()
    taken.assert_shows(FIRST, range(4, FRAMES))
    assert taken.ledger.unplaced_because == {Unplaced.LATE: 4}
    assert taken.ledger.missing_because == {Missing.GAP: 4}


def test_damaged_frames_and_messages_are_said_and_the_rest_is_kept(tmp_path: Path) -> None:
    events = whole_series(FIRST)
    events = [
        (at_s, FrameCame("1", 7, PlainImage(None)) if isinstance(one, FrameCame) and one.number == 7 else one)
        for at_s, one in events
    ]
    events += [(0.2, Malformed("no CBOR"))] * 40
    taken = Script(tmp_path).add_all(events).scan().run()
    assert not taken.frames[0].pop(7).any()
    del taken.positions_px[0][7]
    taken.assert_shows(FIRST, sorted(set(range(FRAMES)) - {7}))
    assert "frame 7 is damaged and set aside: its bytes are damaged" in taken.warnings
    assert sum("no CBOR" in text for text in taken.warnings) == 20


@pytest.mark.parametrize(("total", "most"), [(None, 60), (FRAMES, FRAMES), (80, 60)])
def test_a_perspective_says_how_many_frames_it_has_at_most(tmp_path: Path, total: int | None, most: int) -> None:
    """As the detector said, or the source of positions."""
    header = replace(HEADER, most_frames=60)
    events = [
        (
            at_s,
            replace(one, total=total)
            if isinstance(one, PositionsBegan)
            else SeriesBegan("1", header)
            if isinstance(one, SeriesBegan)
            else one,
        )
        for at_s, one in whole_series(FIRST)
    ]
    live = Script(tmp_path).add_all(events).scan().scan
    assert next(one for one in live.arriving() if one is not None).most_frames == most
    live.close()


def test_a_resumed_scan_does_not_tell_again_what_was_told(tmp_path: Path) -> None:
    """It reads everything again; of the last perspective that was read to its end it tells once more."""
    events = []
    for number in range(3):
        series = whole_series(SCAN.perspective(number), series=str(number), run=f"r{number}", begin_s=20.0 * number)
        events += [event for event in series if not isinstance(event[1], FrameCame) or event[1].number != 5]
    script = Script(tmp_path).add_all(events)
    never = [f"perspective {index}: 1 frames never came: 1 left out between others" for index in range(3)]
    assert [text for text in script.scan().run().warnings if "never came" in text] == never
    assert [text for text in script.scan(told=2).run().warnings if "never came" in text] == never[1:]


def test_a_position_that_the_source_does_not_know_places_nothing(tmp_path: Path) -> None:
    events = whole_series(FIRST)
    unknown = PositionsCame("a", np.array([3]), np.array([[np.nan, 0.0]]))
    events = [
        (at_s, unknown if one.__class__ is PositionsCame and one.numbers[0] == 3 else one) for at_s, one in events
    ]
    taken = Script(tmp_path).add_all(events).scan().run()
    taken.assert_shows(FIRST, sorted(set(range(FRAMES)) - {3}))
    assert taken.ledger.unplaced_because == {Unplaced.NO_POSITION: 1}


def test_positions_known_before_hold_for_every_series(tmp_path: Path) -> None:
    table = PositionsKnown(np.arange(FRAMES), positions_m(FIRST, range(FRAMES)))
    frames = [
        (at_s, one)
        for number in (1, 2)
        for at_s, one in whole_series(FIRST, series=str(number), begin_s=30.0 * number)
        if isinstance(one, FrameCame | SeriesBegan | SeriesEnded) and getattr(one, "number", 0) != 5
    ]
    script = Script(tmp_path).add_all([(35.0, table), *frames])
    taken = script.scan({"join": {**SETTINGS["join"], "wait_s": 10.0}}).run()
    for which in range(2):
        taken.assert_shows(FIRST, sorted(set(range(FRAMES)) - {5}), which=which)
    assert taken.ledger.missing_because == {Missing.GAP: 2}


def test_a_detector_may_be_armed_for_as_long_as_it_takes_though_positions_are_known(tmp_path: Path) -> None:
    armed = [
        (0.0, PositionsKnown(np.arange(FRAMES), positions_m(FIRST, range(FRAMES)))),
        (1.0, SeriesBegan("1", HEADER)),
    ]
    frames = [(at_s + 71.0, one) for at_s, one in whole_series(FIRST) if isinstance(one, FrameCame | SeriesEnded)]
    taken = Script(tmp_path).add_all([*armed, *frames]).scan({"idle_s": 60.0}).run()
    taken.assert_shows(FIRST, range(FRAMES))
    assert taken.endings == [Ending.COMPLETE]
