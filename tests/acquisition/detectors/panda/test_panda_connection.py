"""The connection to a PandA and the simulated one, over loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import pytest
from drained import Drained, drains
from support import Proxy, wait_until

from ptychoflow.acquisition.detectors.arrivals import (
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
)
from ptychoflow.acquisition.detectors.panda.connection import PandaConnection
from ptychoflow.acquisition.detectors.panda.decoder import PandaDecoder
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings, PandaSimulatorSettings
from ptychoflow.acquisition.detectors.panda.simulator import PandaSimulator
from ptychoflow.acquisition.detectors.receiver_process import ReceivedQueue
from ptychoflow.acquisition.scan import Ending, Perspective
from ptychoflow.streaming.errors import UserError

FRAME = np.zeros((2, 2))
NO_FRAMES = cast(Perspective, None)
"""A PandA knows nothing of frames."""
POSITIONS_M = [(1e-6 * index, -2.5e-6 * index) for index in range(50)]


def settings(port: int, **changes: object) -> PandaSettings:
    values = {
        "host": "127.0.0.1",
        "port": port,
        "field_y": "INENC2.VAL",
        "field_x": "INENC1.VAL",
        "stale_first_sample": False,
    } | changes
    return PandaSettings.model_validate(values)


class Captured(Drained):
    """What a connection delivered, and what the decoder makes of it."""

    def __init__(self, its_settings: PandaSettings) -> None:
        super().__init__(lambda: PandaDecoder(its_settings))

    def positions(self) -> dict[str, list[tuple[int, float, float]]]:
        runs: dict[str, list[tuple[int, float, float]]] = {}
        for arrival in self.arrivals:
            assert not isinstance(arrival, Malformed)
            if isinstance(arrival, PositionsCame):
                for number, position in zip(arrival.numbers, arrival.positions_m, strict=True):
                    runs.setdefault(arrival.run, []).append((int(number), *position.tolist()))
        return runs


@contextmanager
def draining(its_settings: PandaSettings) -> Iterator[Captured]:
    drained = Captured(its_settings)
    connection = PandaConnection(its_settings)
    with drains(connection, drained.messages.append):
        yield drained


@pytest.fixture
def simulator() -> Iterator[PandaSimulator]:
    one = PandaSimulator(PandaSimulatorSettings(port=0))
    yield one
    one.close()


def capture(simulator: PandaSimulator, *, aborted: bool = False) -> None:
    simulator.begin(NO_FRAMES, series=1)
    for index, position_m in enumerate(POSITIONS_M):
        simulator.send(index, FRAME, position_m)
    simulator.end(aborted=aborted)


def test_every_capture_comes_as_it_was_sent(simulator: PandaSimulator) -> None:
    with draining(settings(simulator.port)) as drained:
        capture(simulator)
        capture(simulator, aborted=True)
        wait_until(lambda: drained.ended(2))
    runs = drained.positions()
    assert len(runs) == 2
    for samples in runs.values():
        assert samples == [(number, y, x) for number, (y, x) in enumerate(POSITIONS_M)]
    endings = [arrival.ending for arrival in drained.arrivals if isinstance(arrival, PositionsEnded)]
    assert endings == [Ending.COMPLETE, Ending.ABORTED]
    headers = [parts for parts in drained.messages if PandaConnection.begins_series(parts)]
    assert len(headers) == 2
    assert not PandaConnection.begins_series([])


def test_samples_come_by_trigger_several_for_a_frame_after_a_stale_one() -> None:
    simulator = PandaSimulator(
        PandaSimulatorSettings(port=0, samples_per_frame=2, stale_first_sample=True, first_trigger=11)
    )
    its_settings = settings(simulator.port, trigger_field="COUNTER1.OUT.Value", stale_first_sample=True)
    try:
        with draining(its_settings) as drained:
            capture(simulator)
            wait_until(lambda: drained.ended(1))
    finally:
        simulator.close()
    (samples,) = drained.positions().values()
    assert samples[0][0] == 10
    assert np.isnan(samples[0][1:]).all()
    assert samples[1:] == [(number, y, x) for number, (y, x) in enumerate(POSITIONS_M, start=11) for _ in range(2)]


def test_a_broken_connection_loses_only_what_was_captured_meanwhile(simulator: PandaSimulator) -> None:
    proxy = Proxy(simulator.port)
    with draining(settings(proxy.port)) as drained:
        simulator.begin(NO_FRAMES, series=1)
        for index, position_m in enumerate(POSITIONS_M):
            if index == 20:
                wait_until(lambda: sum(len(one) for one in drained.positions().values()) == 20)
                proxy.cut()
            if index == 30:
                wait_until(lambda: any(b'missed="0"' not in bytes(parts[0]) for parts in drained.messages[21:]))
            simulator.send(index, FRAME, position_m)
        simulator.end(aborted=False)
        wait_until(lambda: drained.ended(1))
    proxy.close()
    (samples,) = drained.positions().values()
    numbers = [number for number, *_ in samples]
    assert numbers[:20] == list(range(20))
    assert numbers[20:] == list(range(numbers[20], 50))
    assert 20 <= numbers[20] <= 30
    assert all((y, x) == POSITIONS_M[number] for number, y, x in samples)
    (ended,) = [arrival for arrival in drained.arrivals if isinstance(arrival, PositionsEnded)]
    assert ended.lost == numbers[20] - 20
    assert sum(isinstance(arrival, PositionsBegan) for arrival in drained.arrivals) == 1


@pytest.mark.parametrize("trigger_field", [None, "COUNTER1.OUT.Value"])
def test_samples_behind_one_that_the_receiver_dropped_get_no_wrong_number(trigger_field: str | None) -> None:
    simulator = PandaSimulator(PandaSimulatorSettings(port=0, first_trigger=0))
    proxy, queue = Proxy(simulator.port), ReceivedQueue(1 << 20)
    its_settings = settings(proxy.port, trigger_field=trigger_field)
    drained, full = Drained(lambda: PandaDecoder(its_settings)), ReceivedQueue(1)
    full.put(0, [b"what waits for the disk"])
    receiving, dropped = [queue], []

    def all_dropped() -> bool:
        dropped.append(full.take_dropped())
        return sum(dropped) == 2

    def taken() -> int:
        drained.messages += [message.parts for message in queue.take(0.0)]
        return sum(len(one.numbers) for one in drained.of(PositionsCame))

    try:
        with drains(PandaConnection(its_settings), lambda parts: receiving[0].put(0, parts)):
            simulator.begin(NO_FRAMES, series=1)
            for index, position_m in enumerate(POSITIONS_M):
                if index == 10:
                    wait_until(lambda: taken() == 10)
                    receiving[0] = full
                if index == 12:
                    wait_until(all_dropped)
                    receiving[0] = queue
                if index == 20:
                    wait_until(lambda: taken() is not None and len(drained.messages) == 1 + 10 + 8)
                    proxy.cut()
                    wait_until(lambda: taken() is not None and len(drained.messages) == 20)  # the header again
                simulator.send(index, FRAME, position_m)
            simulator.end(aborted=False)
            wait_until(lambda: taken() is not None and drained.ended(1))
    finally:
        proxy.close()
        simulator.close()
    (began,) = drained.of(PositionsBegan)
    samples = drained.positions_m(began.run)
    assert sorted(samples) == [*range(10), *range(20 if trigger_field is None else 12, 50)]
    assert all(position == POSITIONS_M[number] for number, position in samples.items())
    told = [one.reason for one in drained.of(Malformed)]
    assert [("messages of the PandA were lost" in one) for one in told] == [True] * (trigger_field is None)


def test_a_box_that_is_started_again_is_found_again(simulator: PandaSimulator) -> None:
    with draining(settings(simulator.port)) as drained:
        simulator.begin(NO_FRAMES, series=1)
        simulator.send(0, FRAME, POSITIONS_M[0])
        wait_until(lambda: len(drained.messages) == 2)
        simulator.close()
        another = PandaSimulator(PandaSimulatorSettings(port=simulator.port))
        capture(another)
        wait_until(lambda: drained.ended(2))
        another.close()
    first, second = drained.positions().values()
    assert len(first) == 1
    assert [number for number, *_ in second] == list(range(50))


def test_a_stream_that_cannot_be_followed_is_given_up_and_the_box_asked_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, draining(settings(server.getsockname()[1])) as drained:
        for answer in (b"ERR busy\n", b"OK\nBIN \xff\xff\xff\xff", b"OK\nEND 0 Ok\n"):
            client, _ = server.accept()
            with client:
                assert client.recv(100) == b"XML FRAMED SCALED\n"
                client.sendall(answer)
                if answer.endswith(b"Ok\n"):
                    wait_until(lambda: bool(drained.messages))
                else:
                    assert client.recv(100) == b""
    assert [parts[0] for parts in drained.messages] == [b"END 0 Ok"]


def test_an_address_that_is_none_is_said() -> None:
    connection = PandaConnection(settings(8889, host="no-such-host.invalid"))
    with pytest.raises(UserError, match="no host of this name"):
        connection.drain(lambda _parts: None, threading.Event())


def test_a_name_that_is_not_known_for_a_while_is_asked_for_again(
    simulator: PandaSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, asked = socket.create_connection, []

    def restarting(address: tuple[str, int], timeout_s: float) -> socket.socket:
        asked.append(address)
        if len(asked) == 1:
            near, far = socket.socketpair()
            far.close()  # connected, and gone at once
            return near
        if len(asked) == 2:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return connect(address, timeout_s)

    monkeypatch.setattr(socket, "create_connection", restarting)
    with draining(settings(simulator.port)) as drained:
        simulator.begin(NO_FRAMES, series=1)
        wait_until(lambda: bool(drained.messages))
    assert len(asked) == 3


def test_a_port_in_use_is_said_and_closing_ends_the_waiting(simulator: PandaSimulator) -> None:
    with pytest.raises(UserError, match="choose another port"):
        PandaSimulator(PandaSimulatorSettings(port=simulator.port))
    threading.Timer(0.2, simulator.close).start()
    with pytest.raises(InterruptedError):
        simulator.begin(NO_FRAMES, series=1)
