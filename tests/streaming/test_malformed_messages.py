"""Whatever bytes come to a port, they are a message or are dropped, counted and said once; the good ones go on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from broken_messages import ARRAYS, BODIES, FILE, SAID, header, malformed, mutated
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import telemetry
from strangers import edge_by_hand, stranger_at
from support import wait_until

from ptychoflow.streaming.codec import REASON_LENGTH, Codec, MalformedMessage
from ptychoflow.streaming.commands import AnyCommand, CommandHub, CommandReceiver, Pause
from ptychoflow.streaming.events import Telemetry, WarningRaised
from ptychoflow.streaming.messages import (
    MAX_RANKS,
    MAX_SEQUENCE,
    ControlMessage,
    DataMessage,
    FirstPassScore,
    Frames,
    Hello,
    Weights,
)
from ptychoflow.streaming.publisher import EDGE, Publisher
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets, receive_now
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.streaming.weights_channel import WeightsClient, WeightsServer


@pytest.mark.parametrize("kind", SAID)
def test_every_catalogued_message_is_malformed_and_its_reason_is_one_short_line(kind: str) -> None:
    codec: Codec[Any] = Codec(SAID[kind][0])
    for parts in malformed(kind):
        with pytest.raises(MalformedMessage) as raised:
            codec.decode(parts)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) <= REASON_LENGTH


@pytest.mark.parametrize("kind", SAID)
def test_of_thousands_of_mutated_messages_every_one_is_read_or_malformed(kind: str) -> None:
    body_type, said = SAID[kind]
    codec: Codec[Any] = Codec(body_type)
    chance = random.Random(20)
    good = [[bytes(part) for part in codec.encode(body, arrays, session="s/0")] for body, arrays in said]
    refused = 0
    for _ in range(4000):
        parts = mutated(chance.choice(good), chance)
        try:
            decoded = codec.decode(parts)
        except MalformedMessage:
            refused += 1
        else:
            codec.encode(decoded.body, decoded.arrays, session=decoded.session, sequence=decoded.sequence)
    assert 2000 < refused < 4000


SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]), max_size=7)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(shape=SHAPES, dtype=st.sampled_from(["bool", "uint8", "float16", "complex128"]), content=st.binary(max_size=64))
def test_whatever_shape_is_declared_the_array_has_it_or_the_message_is_malformed(
    shape: list[int], dtype: str, content: bytes
) -> None:
    try:
        array = Codec[Any](DataMessage).decode([header(BODIES["data"], shape=shape, dtype=dtype), content]).arrays["a"]
    except MalformedMessage:
        return
    assert (array.shape, array.dtype, array.nbytes) == (tuple(shape), np.dtype(dtype), len(content))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def said_malformed(caplog: pytest.LogCaptureFixture) -> int:
    return sum("malformed" in record.getMessage() for record in caplog.records)


def test_malformed_messages_stop_no_acquisition(
    network: NetworkSettings, stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = network.model_copy(update={"samples_port": 65_000})
    publisher = stack.enter_context(Publisher(network, spool_dir=tmp_path, memory_bytes=10**6))
    stranger = stranger_at(network, stack, network.acknowledgements_port)
    codec: Codec[ControlMessage] = Codec(ControlMessage)
    nobody = [
        Hello("rank-0", "s", 0, 0, 0),
        Hello("rank-2", "s", 2, 0, 0),
        Hello("camera", "s", 2, 0, 0),
        Hello("rank-0", "s", MAX_RANKS, 0, 0),
        Hello(EDGE, "s", 0, MAX_SEQUENCE + 1, 0),
    ]
    wrong = [*malformed("acknowledgements"), *(codec.encode(hello) for hello in nobody)]
    for parts in wrong:
        stranger.send_multipart(parts)
    stranger.send_multipart(codec.encode(FirstPassScore(5, 20.0, 0.5, 10.0)))

    def heard() -> bool:
        publisher.pump(0.01)
        return bool(publisher.scores)

    wait_until(heard)
    assert publisher.malformed == len(wrong)
    assert publisher.world_size == 0
    assert said_malformed(caplog) == 1


def test_malformed_frames_stop_no_edge(
    network: NetworkSettings, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    inbox, _, data, session = edge_by_hand(network, stack)
    for parts in malformed("data"):
        data.send_multipart(parts)
    good = Codec[DataMessage](DataMessage).encode(Frames(3, 12.5, 1.25), ARRAYS, session=f"{session}/0")
    data.send_multipart(good)
    wait_until(lambda: inbox.receive(0.05) is not None)
    assert inbox.malformed == len(malformed("data"))
    assert said_malformed(caplog) == 1


def test_malformed_requests_stop_no_weights_and_malformed_weights_stop_no_edge(
    network: NetworkSettings, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    server = stack.enter_context(closing(WeightsServer(network)))
    stranger = stranger_at(network, stack, network.weights_port, zmq.DEALER)
    for parts in malformed("requests"):
        stranger.send_multipart(parts)
    wait_until(lambda: server.malformed == len(malformed("requests")))
    client = stack.enter_context(closing(WeightsClient(network, edge="edge")))
    server.publish(Weights(1, hashlib.sha256(b"w").hexdigest(), 10, final=False), b"w")
    wait_until(lambda: client.poll(0.05) is not None)
    assert said_malformed(caplog) == 1


def test_malformed_weights_stop_no_edge(
    network: NetworkSettings, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = stack.enter_context(Sockets(network)).bind(zmq.ROUTER, network.trainer_host, network.weights_port)
    client = stack.enter_context(closing(WeightsClient(network, edge="edge")))

    def asked() -> bool:
        client.poll(0.01)
        return bool(trainer.poll(10))

    wait_until(asked)
    edge = trainer.recv_multipart()[0]
    for parts in malformed("weights"):
        trainer.send_multipart([edge, *parts])
    codec: Codec[Weights] = Codec(Weights)
    trainer.send_multipart([edge, *codec.encode(Weights(1, "0" * 64, 10, final=False))])
    trainer.send_multipart([edge, *codec.encode(Weights(2, "0" * 64, 10, final=False), FILE)])
    wait_until(lambda: client.poll(0.05) is not None)
    assert client.malformed == len(malformed("weights")) + 1
    assert said_malformed(caplog) == 1


def test_malformed_commands_stop_neither_the_hub_nor_a_part(
    network: NetworkSettings, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[AnyCommand] = []
    hub = stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    stranger = stranger_at(network, stack, network.commands_port)
    codec: Codec[AnyCommand] = Codec(AnyCommand)
    for parts in [*malformed("commands"), codec.encode(Pause())]:
        stranger.send_multipart(parts)
    wait_until(lambda: heard == [Pause()])
    assert hub.malformed == len(malformed("commands"))
    part = stack.enter_context(closing(CommandReceiver(network)))
    wait_until(lambda: part.poll(0.05) == Pause())
    assert said_malformed(caplog) == 1


def test_malformed_commands_from_a_hub_stop_no_part(
    network: NetworkSettings, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    hub = stack.enter_context(Sockets(network)).bind(zmq.XPUB, network.hub_host, network.commands_fanout_port)
    part = stack.enter_context(closing(CommandReceiver(network)))
    assert hub.poll(10_000)
    for parts in [*malformed("commands"), Codec[AnyCommand](AnyCommand).encode(Pause())]:
        hub.send_multipart(parts)
    wait_until(lambda: part.poll(0.05) == Pause())
    assert said_malformed(caplog) == 1


def test_malformed_telemetry_stops_no_hub(
    network: NetworkSettings, stack: ExitStack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Telemetry] = []
    hub = TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl", on_event=lambda one, _arrays: heard.append(one))
    stack.enter_context(closing(hub))
    stranger = stranger_at(network, stack, network.telemetry_port, zmq.DEALER)
    for parts in malformed("telemetry"):
        stranger.send_multipart(parts)
    stranger.send_multipart(Codec[Telemetry](Telemetry).encode(telemetry(WarningRaised("good"))))
    wait_until(lambda: bool(heard))
    assert hub.malformed == len(malformed("telemetry"))
    assert said_malformed(caplog) == 1


@pytest.mark.parametrize("socket", ["commands", "weights"])
def test_what_takes_short_messages_alone_hangs_up_on_a_long_one(network: NetworkSettings, socket: str) -> None:
    with ExitStack() as stack:
        hub = stack.enter_context(closing(CommandHub(network)))
        server = stack.enter_context(closing(WeightsServer(network)))
        sockets = stack.enter_context(Sockets(network))
        kind, port = {"commands": (zmq.PUSH, network.commands_port), "weights": (zmq.DEALER, network.weights_port)}[
            socket
        ]
        stranger = sockets.connect(kind, "127.0.0.1", port, watched=zmq.Event.DISCONNECTED)
        stranger.send(bytes(1 << 22))
        assert stranger.get_monitor_socket().poll(20_000), "it was read"
        assert (hub.malformed, server.malformed) == (0, 0)


def test_of_a_message_with_very_many_parts_few_are_kept_and_the_next_is_read(network: NetworkSettings) -> None:
    with Sockets(network) as sockets:
        bound = sockets.bind(zmq.PULL, "127.0.0.1", network.acknowledgements_port)
        stranger = sockets.connect(zmq.PUSH, "127.0.0.1", network.acknowledgements_port)
        stranger.send_multipart([b"part"] * 5000)
        stranger.send_multipart([b"next"])
        assert bound.poll(20_000)
        parts = receive_now(bound)
        assert parts is not None
        assert len(parts) < 100
        with pytest.raises(MalformedMessage):
            Codec(ControlMessage).decode(parts)
        wait_until(lambda: receive_now(bound) == [b"next"])
