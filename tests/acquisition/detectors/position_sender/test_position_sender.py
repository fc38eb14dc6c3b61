"""Positions by message: what the wire format says, and `PositionSender` over loopback, encrypted or not."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import zmq
from drained import Drained, drains
from support import free_ports, wait_until

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
)
from ptychoflow.acquisition.detectors.position_sender import PositionSender
from ptychoflow.acquisition.detectors.position_sender.connection import PositionSenderConnection
from ptychoflow.acquisition.detectors.position_sender.decoder import PositionSenderDecoder
from ptychoflow.acquisition.detectors.position_sender.settings import (
    PositionSenderSettings,
    PositionSenderSimulatorSettings,
)
from ptychoflow.acquisition.detectors.position_sender.simulator import PositionSenderSimulator
from ptychoflow.acquisition.scan import Ending, Perspective
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.keys import make_keys

SETTINGS = PositionSenderSettings()
BEGIN = {"type": "begin", "run": "a"}
END = {"type": "end", "run": "a"}


def packed(**message: Any) -> bytes:
    return msgspec.msgpack.encode(message)


def decode(*messages: dict[str, Any] | bytes) -> list[Arrival]:
    decoder = PositionSenderDecoder(SETTINGS)
    return [
        arrival
        for message in messages
        for arrival in decoder.decode([message if isinstance(message, bytes) else packed(**message)])
    ]


def came(arrivals: Sequence[Arrival]) -> list[tuple[int, float, float]]:
    return [
        (int(number), *position.tolist())
        for arrival in arrivals
        if isinstance(arrival, PositionsCame)
        for number, position in zip(arrival.numbers, arrival.positions_m, strict=True)
    ]


def test_the_format_can_be_written_without_us() -> None:
    arrivals = decode(
        BEGIN | {"series": "7", "total": 3},
        {"type": "positions", "run": "a", "first": 5, "positions_m": [[1e-6, 2e-6], [3, 4.5]]},
        {"type": "positions", "run": "a", "numbers": [9], "positions_m": [[float("nan"), 0.0]]},
        END,
    )
    assert arrivals[0] == PositionsBegan("a", series="7", total=3)
    assert came(arrivals)[:2] == [(5, 1e-6, 2e-6), (6, 3.0, 4.5)]
    number, y, x = came(arrivals)[2]
    assert (number, x) == (9, 0.0)
    assert np.isnan(y)
    assert arrivals[-1] == PositionsEnded("a", Ending.COMPLETE)
    assert decode(BEGIN, END | {"complete": False})[-1] == PositionsEnded("a", Ending.ABORTED)


def test_what_is_lost_is_made_up_for_and_what_is_over_stays_over() -> None:
    positions = {"type": "positions", "run": "a", "first": 0, "positions_m": [[1.0, 2.0]]}
    arrivals = decode(positions, BEGIN, positions | {"run": "b"}, positions, END, positions | {"run": "b"}, END)
    assert [type(arrival) for arrival in arrivals] == [
        PositionsBegan,
        PositionsCame,
        PositionsEnded,
        PositionsBegan,
        PositionsCame,
        Malformed,
        PositionsCame,
    ]
    assert arrivals[2] == PositionsEnded("a", Ending.NEXT_SERIES)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x93" * 10_000,
        packed(type="stop", run="a"),
        packed(type="begin"),
        packed(type="begin", run=""),
        packed(type="begin", run="a" * 200),
        packed(type="begin", run="a", total=-1),
        packed(type="begin", run="a", typo=1),
        packed(type="positions", run="a", positions_m=[[1.0, 2.0]]),
        packed(type="positions", run="a", positions_m=[[1.0, 2.0]], first=0, numbers=[1]),
        packed(type="positions", run="a", positions_m=[[1.0, 2.0]], numbers=[1, 2]),
        packed(type="positions", run="a", positions_m=[[1.0, 2.0, 3.0]], first=0),
        packed(type="positions", run="a", positions_m=[[1.0, "2"]], first=0),
        packed(type="positions", run="a", positions_m=[[1.0, 2.0]], first=2**60),
        b"\xdd\xff\xff\xff\xff",
        bytes(SETTINGS.max_message_bytes + 1),
    ],
)
def test_what_does_not_follow_the_format_is_told_in_a_line(message: bytes) -> None:
    (said,) = decode(message)
    assert isinstance(said, Malformed)
    assert "\n" not in said.reason
    assert not PositionSenderConnection.begins_series([message])


@contextmanager
def draining(settings: PositionSenderSettings) -> Iterator[Drained]:
    drained = Drained(lambda: PositionSenderDecoder(SETTINGS))
    with drains(PositionSenderConnection(settings), drained.messages.append):
        yield drained


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_sender_is_heard(tmp_path: Path, *, encrypted: bool) -> None:
    keys_dir = tmp_path / "keys" if encrypted else None
    if keys_dir is not None:
        make_keys(keys_dir)
    (port,) = free_ports(1)
    many_m = np.arange(20_000).reshape(-1, 2) * 1e-9
    with (
        draining(PositionSenderSettings(port=port, keys_dir=keys_dir)) as drained,
        PositionSender(port=port, keys_dir=keys_dir) as sender,
    ):
        sender.begin(series="1", total=10_003, first=1)
        sender.send([(1.0, 2.0)])
        sender.send(many_m)
        sender.send([(3.0, 4.0)], first=20_000)
        sender.begin()
        wait_until(lambda: drained.ended(1))
    assert came(drained.arrivals) == [
        (1, 1.0, 2.0),
        *((number, y, x) for number, (y, x) in enumerate(many_m.tolist(), start=2)),
        (20_000, 3.0, 4.0),
    ]
    began = [PositionSenderConnection.begins_series(parts) for parts in drained.messages]
    assert sum(began) == 2
    assert began[0]


def test_a_program_that_ends_in_the_middle_says_so() -> None:
    (port,) = free_ports(1)
    with draining(PositionSenderSettings(port=port)) as drained:
        with pytest.raises(ZeroDivisionError), PositionSender(port=port) as sender:
            sender.begin()
            raise ZeroDivisionError
        wait_until(lambda: drained.ended(1))
    assert [one.ending for one in drained.arrivals if isinstance(one, PositionsEnded)] == [Ending.ABORTED]


def test_who_sends_wrongly_or_to_nobody_is_told() -> None:
    (port,) = free_ports(1)
    with PositionSender(port=port, timeout_s=0.1) as sender:
        with pytest.raises(UserError, match="call begin"):
            sender.send([(0.0, 0.0)])
        with pytest.raises(UserError, match="nobody has taken positions"):
            sender.begin()
    with pytest.raises(UserError, match="needs keys"):
        PositionSender("192.0.2.1")
    with draining(PositionSenderSettings(port=port)), PositionSender(port=port) as sender:
        sender.begin()
        with pytest.raises(UserError, match=r"shape \(n, 2\)"):
            sender.send([1.0, 2.0])


def test_an_address_that_is_in_use_or_open_to_others_is_said() -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as taken:
        port = taken.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(UserError, match="choose another port"):
            PositionSenderConnection(PositionSenderSettings(port=port)).drain(lambda _: None, threading.Event())
    with pytest.raises(UserError, match="needs keys"):
        PositionSenderConnection(PositionSenderSettings(host="0.0.0.0")).drain(lambda _: None, threading.Event())


def test_the_simulator_sends_what_a_program_would() -> None:
    (port,) = free_ports(1)
    perspective = cast(Perspective, range(3))
    settings = PositionSenderSimulatorSettings(port=port, first_sample=1, samples_per_frame=2, series=True)
    simulator = PositionSenderSimulator(settings)
    with draining(PositionSenderSettings(port=port)) as drained:
        for series, aborted in ((1, False), (2, True)):
            simulator.begin(perspective, series=series)
            for index in (0, 2):
                simulator.send(index, np.zeros((1, 1)), (index * 1e-6, -index * 1e-6))
            simulator.end(aborted=aborted)
        wait_until(lambda: drained.ended(2))
    simulator.close()
    samples = [(1, 0.0, 0.0), (2, 0.0, 0.0), (5, 2e-6, -2e-6), (6, 2e-6, -2e-6)]
    assert came(drained.arrivals) == samples * 2
    assert [(one.series, one.total) for one in drained.arrivals if isinstance(one, PositionsBegan)] == [
        ("1", 6),
        ("2", 6),
    ]
    endings = [one.ending for one in drained.arrivals if isinstance(one, PositionsEnded)]
    assert endings == [Ending.COMPLETE, Ending.ABORTED]


def test_the_simulator_waits_for_somebody_until_it_is_closed() -> None:
    simulator = PositionSenderSimulator(PositionSenderSimulatorSettings(port=free_ports(1)[0]))
    threading.Timer(0.3, simulator.close).start()
    with pytest.raises(InterruptedError):
        simulator.begin(cast(Perspective, range(3)), series=1)
