"""A malformed event never silences the good ones: in the file, on the wire, at the hub and at a viewer."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import zmq
from speaking import telemetry
from support import wait_until

from ptychoflow.streaming.codec import Codec, MalformedMessage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    Channels,
    ClassificationInfo,
    HeldOutScores,
    Part,
    Quality,
    TaskAccuracies,
    Telemetry,
    TrainingStep,
    WarningRaised,
    WeightsApplied,
)
from ptychoflow.streaming.messages import SCHEMA_VERSION
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender, TelemetrySubscriber
from ptychoflow.streaming.telemetry_log import MAX_LINE_BYTES, TelemetryLog
from ptychoflow.streaming.utf8 import in_utf8

GOOD = msgspec.json.encode(telemetry(WeightsApplied(1)))
ENVELOPE = b'{"time_s":1.0,"part":"edge","rank":0,"schema":%d,"event":%%s}' % SCHEMA_VERSION
MALFORMED_LINES = {
    "nothing": b"",
    "cut short": GOOD[:30],
    "no UTF-8": GOOD.replace(b"edge", b"\xff\xfe"),
    "no UTF-8 in a text": ENVELOPE % b'{"type":"warning","text":"a\xffb"}',
    "half a surrogate": ENVELOPE % b'{"type":"warning","text":"\\ud800"}',
    "zero bytes": bytes(64),
    "nested deeply": b'{"unknown":' + b"[" * 100_000,
    "nested deeply in an event": ENVELOPE % (b"[" * 100_000),
    "another type": ENVELOPE % b'{"type":"weights_applied","version":"new"}',
    "an integer beyond all readers": ENVELOPE % (b'{"type":"weights_applied","version":1' + b"0" * 300 + b"}"),
    "a float beyond all": ENVELOPE % b'{"type":"part_status","state":1e999}',
    "an unknown event": ENVELOPE % b'{"type":"unheard_of"}',
    "an unknown part": GOOD.replace(b"edge", b"moon"),
    "too long": ENVELOPE % (b'{"type":"warning","text":"' + b"x" * (MAX_LINE_BYTES + 10) + b'"}'),
}


@pytest.mark.parametrize("line", MALFORMED_LINES.values(), ids=MALFORMED_LINES.keys())
def test_a_malformed_line_is_skipped_and_said_once(
    tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(b"\n".join([GOOD, line, line, GOOD, b""]))
    assert [one.event for one in TelemetryLog(path)] == [WeightsApplied(1), WeightsApplied(1)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: skipped 2 malformed lines and 0 of another version"
    ]


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD[:30])
    log = TelemetryLog(path)
    assert len(list(log)) == 1
    assert log.position == len(GOOD) + 1
    path.write_bytes(GOOD + b"\n" + GOOD + b"\n")
    assert len(list(log)) == 1
    assert list(log) == []


def test_figures_that_are_not_finite_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    wrong = Channels(math.nan, math.inf)
    scores = HeldOutScores(0, 9, Quality(wrong, wrong, Channels(1.0, 2.0)), Quality(wrong, wrong, wrong), 1)
    path.write_bytes(msgspec.json.encode(telemetry(scores)) + b"\n")
    (read,) = TelemetryLog(path)
    assert isinstance(read.event, HeldOutScores)
    assert math.isnan(read.event.quality.psnr_db.phase)
    assert read.event.quality.correlation == Channels(1.0, 2.0)


OLD_LINES = (
    b'{"time_s":1.0,"sender":"edge","event":{"type":"weights_applied","version":1}}\n'
    b'{"time_s":2.0,"sender":"acquisition","event":{"type":"images_info","source":"x"}}\n'
)


def test_a_file_of_another_version_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(OLD_LINES)
    with pytest.raises(UserError, match=r"telemetry\.jsonl was written by another version of ptychoflow"):
        list(TelemetryLog(path))


def test_lines_of_another_version_are_counted_beside_those_that_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(OLD_LINES + GOOD + b"\n")
    assert len(list(TelemetryLog(path))) == 1
    assert "skipped 0 malformed lines and 2 of another version" in caplog.text


def header(body: bytes) -> bytes:
    """Return a message's header around the bytes of its body."""
    names = (b"\xa6schema", b"\xa7session", b"\xa8sequence", b"\xa4body", b"\xa6arrays")
    values = (bytes([SCHEMA_VERSION]), b"\xa0", b"\x00", body, b"\x90")
    return b"\x85" + b"".join(name + value for name, value in zip(names, values, strict=True))


def body(event: bytes, time_s: bytes = b"\x01") -> bytes:
    return b"\x84\xa6time_s" + time_s + b"\xa4part\xa4edge\xa4rank\x00\xa5event" + event


WARNING = b"\x82\xa4type\xa7warning\xa4text"
VALIDATION = (
    b"\x86\xa4type\xafvalidation_loss\xb1after_perspective\x00\xa4step\x00\xaemean_over_seen\x00\xa8constant\x00"
    b"\xafper_perspective"
)
MALFORMED_HEADERS = {
    "nothing": b"",
    "no map": b"\xc0",
    "no UTF-8": header(body(WARNING + b"\xa2\xff\xfe")),
    "no UTF-8 in a key": header(body(b"\x81\xa2\xff\xfe\x00")),
    "nested deeply": b"\x81\xa1x" + b"\x91" * 100_000,
    "nested deeply in the event": header(body(b"\x82\xa4type\xa7warning\xa4text" + b"\x91" * 100_000)),
    "a text longer than the message": header(body(WARNING + b"\xdb\xff\xff\xff\xff")),
    "a map larger than the message": header(body(VALIDATION + b"\xdf\xff\xff\xff\xff")),
    "a list larger than the message": header(body(b"\xdd\xff\xff\xff\xff")),
    "a time beyond all": header(body(WARNING + b"\xa1x", time_s=b"\xd8\xff" + bytes(16))),
    "an integer beyond all readers": header(body(b"\x82\xa4type\xafweights_applied\xa7version\xcf" + b"\xff" * 8)),
    "bytes behind the end": header(body(WARNING + b"\xa1x")) + b"\x00",
}


@pytest.mark.parametrize("raw", MALFORMED_HEADERS.values(), ids=MALFORMED_HEADERS.keys())
def test_a_malformed_message_is_malformed_and_nothing_else(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Codec(Telemetry).decode([raw])


def test_the_wire_carries_these_events_when_they_are_well_formed() -> None:
    assert Codec(Telemetry).decode([header(body(WARNING + b"\xa1x"))]).body.event == WarningRaised("x")
    nan = b"\xcb" + struct.pack(">d", math.nan)
    assert math.isnan(Codec(Telemetry).decode([header(body(WARNING + b"\xa1x", time_s=nan))]).body.time_s)


@pytest.fixture
def hub(network: NetworkSettings, tmp_path: Path) -> Iterator[TelemetryHub]:
    hub = TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")
    yield hub
    hub.close()


def test_a_hub_goes_on_after_malformed_events_and_says_so_once(
    network: NetworkSettings, hub: TelemetryHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Sockets(network) as sockets, closing(TelemetrySender(network, part=Part.EDGE)) as sender:
        hostile = sockets.connect(zmq.DEALER, network.hub_host, network.telemetry_port)
        for raw in MALFORMED_HEADERS.values():
            hostile.send_multipart([raw])
        wait_until(lambda: hub.malformed == len(MALFORMED_HEADERS))
        sender.send(WeightsApplied(7))
        wait_until(lambda: b"weights_applied" in (tmp_path / "telemetry.jsonl").read_bytes())
    assert len([record for record in caplog.records if "malformed" in record.getMessage()]) == 1


def test_a_viewer_gets_the_good_event_behind_a_malformed_one_in_the_same_call(
    network: NetworkSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with Sockets(network) as sockets, closing(TelemetrySubscriber(network)) as viewer:
        fanout = sockets.bind(zmq.PUB, network.hub_host, network.fanout_port)
        good = Codec(Telemetry).encode(telemetry(WeightsApplied(3)))

        def arrived() -> bool:
            fanout.send_multipart(good)
            return viewer.receive(0.05) is not None

        wait_until(arrived)
        while viewer.receive(0.2) is not None:
            pass
        for raw in (*MALFORMED_HEADERS.values(), *MALFORMED_HEADERS.values()):
            fanout.send_multipart([raw])
        fanout.send_multipart(good)
        received = viewer.receive(10.0)
    assert received is not None
    assert received.body.event == WeightsApplied(3)
    assert len([record for record in caplog.records if "malformed" in record.getMessage()]) == 1


def test_an_event_that_cannot_be_sent_ends_no_part(
    network: NetworkSettings, hub: TelemetryHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(TelemetrySender(network, part=Part.ACQUISITION)) as sender:
        sender.send(TrainingStep(10**30, 0.5, None, None, 1e-3, 1, 1, 1.0))
        sender.send(WeightsApplied(2))
        wait_until(lambda: b"weights_applied" in (tmp_path / "telemetry.jsonl").read_bytes())
        assert sender.dropped == 1
    assert "TrainingStep cannot be sent" in caplog.text


def test_an_event_that_quotes_a_name_that_is_no_utf8_is_told_all_the_same(
    network: NetworkSettings, hub: TelemetryHub, tmp_path: Path
) -> None:
    """Else a folder of images with one such class would have no results."""
    with closing(TelemetrySender(network, part=Part.ACQUISITION)) as sender:
        sender.send(ClassificationInfo("images", [["ant", "k\udce4fer"]], [3], 1, 8, [[1, 1]]))
        sender.send(TaskAccuracies(0, 7, top1={0: 0.5}, top5={0: 1.0}))
        wait_until(lambda: b"task_accuracies" in (tmp_path / "telemetry.jsonl").read_bytes())
        assert sender.dropped == 0
    events = [told.event for told in TelemetryLog(tmp_path / "telemetry.jsonl")]
    assert events == [
        ClassificationInfo("images", [["ant", "k\\udce4fer"]], [3], 1, 8, [[1, 1]]),
        TaskAccuracies(0, 7, top1={0: 0.5}, top5={0: 1.0}),
    ]


def test_what_has_no_utf8_is_written_out_anywhere_in_an_event() -> None:
    event = TaskAccuracies(0, 7, top1={0: math.inf}, top5={})
    assert in_utf8(telemetry(event)) == telemetry(event)
    assert in_utf8(telemetry(WarningRaised("scan\udcff.h5 \u00e4"))).event == WarningRaised("scan\\udcff.h5 \u00e4")
