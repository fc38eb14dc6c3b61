"""What is made of the messages of a PandA's data port, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
)
from ptychoflow.acquisition.detectors.panda.decoder import PandaDecoder
from ptychoflow.acquisition.detectors.panda.framing import Framing, Unframed
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings
from ptychoflow.acquisition.readers.units import LengthUnit
from ptychoflow.acquisition.scan import Ending

FIELDS = (
    '<field name="COUNTER1.OUT" type="double" capture="Value" scale="1" offset="0" units="" />\n'
    '<field name="INENC1.VAL" type="double" capture="Mean" scale="1e-3" offset="0" units="{unit_x}" />\n'
    '<field name="INENC1.VAL" type="double" capture="Min" scale="1e-3" offset="0" units="{unit_x}" />\n'
    '<field name="PCAP.BITS2" type="uint32" capture="Value" />\n'
    '<field name="INENC2.VAL" type="double" capture="Value" scale="1e-3" offset="0" units="{unit_y}" />\n'
)
SAMPLE = struct.Struct("<dddId")


def settings(**changes: object) -> PandaSettings:
    values = {
        "host": "127.0.0.1",
        "field_y": "INENC2.VAL",
        "field_x": "INENC1.VAL.Mean",
        "stale_first_sample": False,
    } | changes
    return PandaSettings.model_validate(values)


def header(
    *, missed: int = 0, unit_y: str = "um", unit_x: str = "um", more: str = "", process: str = "Scaled"
) -> bytes:
    data = f'missed="{missed}" process="{process}" format="Framed" sample_bytes="{SAMPLE.size}" {more}'
    fields = FIELDS.format(unit_y=unit_y, unit_x=unit_x)
    return f"<header>\n<data {data} />\n<fields>\n{fields}</fields>\n</header>".encode()


def block(*samples: tuple[float, float, float]) -> bytes:
    """A block of samples of (trigger, y, x)."""
    data = b"".join(SAMPLE.pack(trigger, x, x - 1, 7, y) for trigger, y, x in samples)
    return b"BIN " + struct.pack("<I", 8 + len(data)) + data


def decode(decoder: PandaDecoder, *messages: bytes) -> list[Arrival]:
    return [arrival for message in messages for arrival in decoder.decode([memoryview(message)])]


def came(arrivals: list[Arrival]) -> list[tuple[int, float, float]]:
    return [
        (int(number), *position.tolist())
        for arrival in arrivals
        if isinstance(arrival, PositionsCame)
        for number, position in zip(arrival.numbers, arrival.positions_m, strict=True)
    ]


def reasons(arrivals: list[Arrival]) -> list[str]:
    return [arrival.reason for arrival in arrivals if isinstance(arrival, Malformed)]


def test_a_capture_becomes_a_run_of_positions_in_metres() -> None:
    arrivals = decode(PandaDecoder(settings()), header(), block((1, 2.0, 3.0), (2, 4.0, 5.0)), block(), b"END 2 Ok")
    began, positions, ended = arrivals
    assert isinstance(began, PositionsBegan)
    assert began.series is None
    assert isinstance(positions, PositionsCame)
    assert positions.run == began.run
    assert positions.numbers.tolist() == [0, 1]
    np.testing.assert_array_equal(positions.positions_m, np.array([[2.0, 3.0], [4.0, 5.0]]) * 1e-6)
    assert ended == PositionsEnded(began.run, Ending.COMPLETE, lost=0)


def test_every_capture_is_a_run_of_its_own_named_by_the_time_it_came() -> None:
    decoder = PandaDecoder(settings())
    names = []
    for time in (b"1796000000000000000", b"1796000000000000001"):
        arrivals = list(decoder.decode([header(), time]))
        assert isinstance(arrivals[-1], PositionsBegan)
        names.append(arrivals[-1].run)
    assert names == ["panda-1796000000000000000", "panda-1796000000000000001"]


def test_each_field_counts_in_its_own_unit_and_a_setting_counts_first() -> None:
    messages = header(unit_y="mm", unit_x="nm"), block((1, 2.0, 3.0))
    assert came(decode(PandaDecoder(settings()), *messages)) == [(0, 2e-3, 3 * 1e-9)]
    own = PandaDecoder(settings(unit=LengthUnit.METRE))
    assert came(decode(own, *messages)) == [(0, 2.0, 3.0)]


@pytest.mark.parametrize("unit", ["", "deg", "furlong"])
def test_a_unit_is_asked_for_and_not_guessed(unit: str) -> None:
    arrivals = decode(PandaDecoder(settings()), header(unit_y=unit), block((1, 2.0, 3.0)))
    assert came(arrivals) == []
    assert "INENC2.VAL.Value has the unit" in reasons(arrivals)[0]
    assert "set its unit" in reasons(arrivals)[0]


@pytest.mark.parametrize(("field", "said"), [("INENC1.VAL", "has 2 fields"), ("INENC9.VAL", "has no fields")])
def test_a_field_that_is_not_one_is_named_with_those_there_are(field: str, said: str) -> None:
    arrivals = decode(PandaDecoder(settings(field_x=field)), header())
    assert said in reasons(arrivals)[0]
    assert "INENC1.VAL.Mean, INENC1.VAL.Min" in reasons(arrivals)[0]


def test_what_was_missed_shifts_the_numbers_and_is_lost() -> None:
    arrivals = decode(PandaDecoder(settings()), header(missed=5), block((1, 2.0, 3.0)), b"END 1 Ok")
    assert [number for number, *_ in came(arrivals)] == [5]
    assert isinstance(arrivals[-1], PositionsEnded)
    assert arrivals[-1].lost == 5


def test_the_field_of_triggers_numbers_the_samples() -> None:
    decoder = PandaDecoder(settings(trigger_field="COUNTER1.OUT"))
    arrivals = decode(decoder, header(missed=5), block((17, 2.0, 3.0), (19, 2.0, 3.0)))
    assert [number for number, *_ in came(arrivals)] == [17, 19]
    assert came(decode(decoder, block((np.nan, 2.0, 3.0)), block((1.5, 2.0, 3.0)), block((1e300, 0.0, 0.0)))) == []
    assert [number for number, *_ in came(decode(decoder, block((20, 2.0, 3.0))))] == [20]


def test_a_stale_first_sample_is_counted_but_not_used() -> None:
    decoder = PandaDecoder(settings(stale_first_sample=True))
    first, second = came(decode(decoder, header(), block((1, 2.0, 3.0), (2, 4.0, 5.0))))
    assert first[0] == 0
    assert np.isnan(first[1:]).all()
    assert second == (1, 4 * 1e-6, 5 * 1e-6)
    joined_late = came(decode(decoder, b"END 2 Ok", header(missed=1), block((2, 4.0, 5.0))))
    assert joined_late == [(1, 4 * 1e-6, 5 * 1e-6)]


def test_a_capture_goes_on_after_a_break_of_the_connection() -> None:
    decoder = PandaDecoder(settings())
    arrivals = decode(decoder, header(), block((1, 1.0, 1.0), (2, 2.0, 2.0)))
    arrivals += decode(decoder, header(missed=4), block((5, 5.0, 5.0)), b"END 1 Ok")
    assert [type(arrival) for arrival in arrivals] == [PositionsBegan, PositionsCame, PositionsCame, PositionsEnded]
    assert [number for number, *_ in came(arrivals)] == [0, 1, 4]
    assert isinstance(arrivals[-1], PositionsEnded)
    assert arrivals[-1].lost == 2


@pytest.mark.parametrize(
    "next_header", [header(), header(missed=1), header(missed=4, more='arm_time="2026-11-29T03:00:00Z"')]
)
def test_another_capture_ends_one_whose_end_was_lost(next_header: bytes) -> None:
    decoder = PandaDecoder(settings())
    began, _ = decode(decoder, header(), block((1, 1.0, 1.0), (2, 2.0, 2.0)))
    ended, other = decode(decoder, next_header)
    assert isinstance(began, PositionsBegan)
    assert isinstance(other, PositionsBegan)
    assert ended == PositionsEnded(began.run, Ending.NEXT_SERIES)
    assert other.run != began.run


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        (b"END 1 Ok", Ending.COMPLETE),
        (b"END 1 Disarmed", Ending.COMPLETE),
        (b"END 1 Data overrun", Ending.ABORTED),
        (b"END 1 Framing error", Ending.ABORTED),
    ],
)
def test_how_a_capture_ended(end: bytes, ending: Ending) -> None:
    *_, ended = decode(PandaDecoder(settings()), header(), block((1, 1.0, 1.0)), end)
    assert isinstance(ended, PositionsEnded)
    assert ended.ending is ending


def test_samples_that_never_came_are_lost_and_an_end_may_come_twice() -> None:
    decoder = PandaDecoder(settings())
    *_, ended = decode(decoder, header(), block((1, 1.0, 1.0)), b"END 3 Ok")
    assert isinstance(ended, PositionsEnded)
    assert ended.lost == 2
    assert decode(decoder, b"END 3 Ok") == []


def test_after_a_damaged_block_no_sample_gets_a_wrong_number() -> None:
    decoder = PandaDecoder(settings())
    *_, ended, said = decode(decoder, header(), block((1, 1.0, 1.0)), block((2, 1.0, 1.0))[:-3])
    assert isinstance(ended, PositionsEnded)
    assert ended.ending is Ending.ABORTED
    assert isinstance(said, Malformed)
    assert came(decode(decoder, block((3, 1.0, 1.0)))) == []


@pytest.mark.parametrize("trigger_field", [None, "COUNTER1.OUT"])
def test_samples_of_a_capture_whose_header_was_lost_are_not_of_the_one_before(trigger_field: str | None) -> None:
    decoder = PandaDecoder(settings(trigger_field=trigger_field))
    messages = [
        [header(), b"17"],
        [block((0, 1.0, 1.0)), b"17 1"],
        [block((1, 3.0, 1.0)), b"18 1"],
        [b"END 1 Ok", b"18 2"],
    ]
    began, first, ended, said = [arrival for parts in messages for arrival in decoder.decode(parts)]
    assert came([first]) == [(0, 1e-6, 1e-6)]
    assert ended == PositionsEnded(began.run, Ending.NEXT_SERIES)
    assert isinstance(said, Malformed)


@pytest.mark.parametrize("place", [b"17 3", b"17 1", b"17", b"", b"17 2 3", b"17 " + b"9" * 5000, b"\xff"])
def test_samples_without_their_place_have_no_number(place: bytes) -> None:
    decoder = PandaDecoder(settings())
    messages = [[header(), b"17"], [block((0, 1.0, 1.0)), b"17 1"], [block((1, 3.0, 1.0)), place]]
    arrivals = [arrival for parts in messages for arrival in decoder.decode(parts)]
    assert [number for number, *_ in came(arrivals)] == [0]
    assert reasons(arrivals)


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (header().replace(b"<fields>", b"<fields"), "no XML"),
        (header().replace(b"<header>", b'<header><!DOCTYPE h [<!ENTITY a "aaaa">]>'), "no XML"),
        (header().replace(b'sample_bytes="36"', b'sample_bytes="35"'), "has 35 bytes, but its fields have 36"),
        (header().replace(b'missed="0"', b'missed="-1"'), "missed"),
        (header().replace(b'missed="0"', b'missed="99999999999999999"'), "missed"),
        (header().replace(b'type="uint32"', b'type="object"'), "'object'"),
        (header().replace(b"Framed", b"ASCII"), "'ASCII'"),
        (header(process="Raw"), "'Raw'"),
        (b"<header>" + b"<field/>" * 600 + b"</header>", "more than 512 fields"),
        (b"<header>" + b" " * 70_000 + b"</header>", "70017 bytes"),
    ],
)
def test_a_header_that_cannot_be_used_says_why(damaged: bytes, said: str) -> None:
    arrivals = decode(PandaDecoder(settings()), damaged)
    assert [type(arrival) for arrival in arrivals] == [Malformed]
    assert said in reasons(arrivals)[0]


def test_nothing_else_is_understood() -> None:
    decoder = PandaDecoder(settings())
    assert len(reasons(list(decoder.decode([])))) == 1
    assert len(reasons(decode(decoder, b"", b"HELLO", b"END", block((1, 1.0, 1.0))))) == 4


def whole_stream() -> bytes:
    captures = [header() + b"\n\n" + block((1, 2.0, 3.0), (2, 4.0, 5.0)) + block((3, 4.0, 5.0)) + b"END 3 Ok\n"] * 2
    return b"OK\n" + b"".join(captures)


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 3, 7, 64, 1021, 100_000])
def test_messages_are_the_same_however_the_stream_is_cut(size: int) -> None:
    framing = Framing(1 << 20)
    messages = [message for piece in cut(whole_stream(), size) for message in framing.feed(piece)]
    capture = [header(), block((1, 2.0, 3.0), (2, 4.0, 5.0)), block((3, 4.0, 5.0)), b"END 3 Ok"]
    assert messages == capture * 2


@pytest.mark.parametrize(
    "stream",
    [
        b"ERR No such option\n",
        b"OK\nWHAT is this\n",
        b"OK\nBIN \xff\xff\xff\xff",
        b"OK\nBIN \x07\x00\x00\x00",
        b"OK\nEND " + b"9" * 5000,
        b"OK\n<header>" + b" " * 70_000,
        b"O" * 5000,
    ],
)
def test_a_stream_that_cannot_be_followed_is_given_up(stream: bytes) -> None:
    framing = Framing(1 << 20)
    with pytest.raises(Unframed):
        list(framing.feed(stream))
