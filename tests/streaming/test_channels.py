"""Weights and telemetry over real sockets."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import zmq
from support import Stopwatch, wait_until

from ptychoflow.streaming.codec import Arrays, Codec, Decoded
from ptychoflow.streaming.events import MosaicImage, MosaicKind, Part, Telemetry, WarningRaised, WeightsApplied
from ptychoflow.streaming.messages import Weights, WeightsRequest
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets
from ptychoflow.streaming.telemetry import ARRAYS_AWAY_BYTES, TelemetryHub, TelemetrySender, TelemetrySubscriber
from ptychoflow.streaming.telemetry_log import TelemetryLog
from ptychoflow.streaming.weights_channel import WeightsClient, WeightsServer


def weights(version: int, *, final: bool = False) -> tuple[Weights, bytes]:
    data = bytes([version]) * 1000
    return Weights(version, hashlib.sha256(data).hexdigest(), step=version * 10, final=final), data


def fetch(client: WeightsClient) -> tuple[Weights, bytes]:
    got: list[tuple[Weights, bytes]] = []

    def step() -> bool:
        if (answer := client.poll(0.05)) is not None:
            got.append(answer)
        return bool(got)

    wait_until(step)
    return got[0]


def test_the_newest_version_wins_and_late_joiners_get_it_at_once(network: NetworkSettings) -> None:
    server = WeightsServer(network)
    client = WeightsClient(network, edge="edge")
    assert client.poll(0.2) is None
    server.publish(*weights(1))
    assert fetch(client) == weights(1)
    for version in (2, 3, 4):
        server.publish(*weights(version))
    versions = []
    while not versions or versions[-1] < 4:
        versions.append(fetch(client)[0].version)
    assert versions == sorted(set(versions))
    late = WeightsClient(network, edge="late")
    assert fetch(late) == weights(4)
    assert client.poll(0.3) is None
    for one in (client, late):
        one.close()
    server.close()


def test_closing_waits_until_the_final_version_was_fetched(network: NetworkSettings) -> None:
    server = WeightsServer(network)
    server.publish(*weights(1, final=True))
    began_s = time.monotonic()
    with Stopwatch() as stopwatch:
        assert not server.wait_until_served(0.3)
        server.close()
    assert time.monotonic() - began_s >= 0.3
    assert stopwatch.passed_s < 5
    server = WeightsServer(network)
    client = WeightsClient(network, edge="edge")
    server.publish(*weights(2, final=True))
    assert fetch(client)[0].final
    began_s = time.monotonic()
    assert server.wait_until_served(60.0)
    server.close()
    assert time.monotonic() - began_s < 30
    client.close()


def ask_and_be_killed(network: NetworkSettings, newer_than: int) -> None:
    """Ask for weights, and be gone before there are any."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(f"tcp://{network.trainer_host}:{network.weights_port}")
    socket.send_multipart(Codec(WeightsRequest).encode(WeightsRequest("edge", newer_than)))
    context.destroy(linger=5000)


def test_closing_does_not_wait_for_an_edge_that_was_killed_and_has_a_successor(network: NetworkSettings) -> None:
    server = WeightsServer(network)
    server.publish(*weights(1))
    ask_and_be_killed(network, newer_than=1)
    successor = WeightsClient(network, edge="edge")
    for version in (1, 2):
        server.publish(*weights(version))
        assert fetch(successor) == weights(version)
    server.publish(*weights(3, final=True))
    assert fetch(successor)[0].final
    with Stopwatch() as stopwatch:
        assert server.wait_until_served(60.0)
        server.close()
    assert stopwatch.passed_s < 7.5
    successor.close()


def test_nobody_waits_for_an_edge_that_has_finished_before_the_final_weights(network: NetworkSettings) -> None:
    server = WeightsServer(network)
    server.publish(*weights(1))
    client = WeightsClient(network, edge="edge")
    assert fetch(client) == weights(1)
    client.leave()
    client.close()
    server.publish(*weights(2, final=True))
    assert server.wait_until_served(60.0)
    assert server.unserved == []
    server.close()


def test_what_was_sent_and_never_read_is_not_served(network: NetworkSettings) -> None:
    server = WeightsServer(network)
    server.publish(*weights(1))
    cut_off, other = (WeightsClient(network, edge=name) for name in ("cut off", "other"))
    for client in (cut_off, other):
        assert fetch(client) == weights(1)
    server.publish(*weights(2, final=True))
    assert fetch(other)[0].final
    wait_until(lambda: server.served == 4)
    assert not server.wait_until_served(0.5), "the final weights may lie in the cable of an edge that asked once"
    assert server.unserved == ["cut off"]
    assert fetch(cut_off)[0].final
    assert server.wait_until_served(60.0)
    other.close()
    other = WeightsClient(network, edge="other")
    again = other.poll(0.0)
    if again is None:
        wait_until(lambda: server.unserved == ["other"])
    assert (again or fetch(other))[0].final, "one that is started again has lost them"
    assert server.wait_until_served(60.0)
    for client in (cut_off, other):
        client.close()
    server.close()


def test_weights_that_are_still_on_their_way_are_not_sent_again(network: NetworkSettings) -> None:
    server = WeightsServer(network)
    server.publish(*weights(1))
    requests: Codec[WeightsRequest] = Codec(WeightsRequest)
    with Sockets(network) as sockets:
        edge = sockets.connect(zmq.DEALER, network.trainer_host, network.weights_port)
        for _ in range(5):  # as often as it waits for five seconds
            edge.send_multipart(requests.encode(WeightsRequest("edge", -1)))
        wait_until(lambda: server.served > 0)
        server.publish(*weights(2))
        edge.send_multipart(requests.encode(WeightsRequest("edge", 1)))
        came: list[int] = []

        def newest_came() -> bool:
            if edge.poll(10):
                came.append(Codec(Weights).decode(edge.recv_multipart()).body.version)
            return 2 in came

        wait_until(newest_came)
        assert came == [1, 2]
    with closing(WeightsClient(network, edge="edge")) as again:
        assert fetch(again) == weights(2), "one that is started again has lost them"
    server.close()


def test_a_client_knows_how_long_the_trainer_has_been_away(network: NetworkSettings) -> None:
    client = WeightsClient(network, edge="edge")
    assert client.poll(0.2) is None
    assert client.trainer_away_s > 0.1
    server = WeightsServer(network)
    wait_until(lambda: (client.poll(0.05), client.trainer_away_s == 0.0)[1])
    server.close()
    wait_until(lambda: (client.poll(0.05), client.trainer_away_s > 0.2)[1])
    client.close()


def test_a_client_survives_the_restart_of_the_trainer(network: NetworkSettings) -> None:
    client = WeightsClient(network, edge="edge")
    server = WeightsServer(network)
    server.publish(*weights(1))
    assert fetch(client) == weights(1)
    server.close()
    server = WeightsServer(network)
    server.publish(*weights(2))
    assert fetch(client) == weights(2)
    server.close()
    client.close()


def test_events_reach_the_file_the_callback_and_the_viewers(network: NetworkSettings, tmp_path: Path) -> None:
    seen: list[tuple[Telemetry, Arrays]] = []
    hub = TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl", on_event=lambda *event: seen.append(event))
    viewer = TelemetrySubscriber(network)
    sender = TelemetrySender(network, part=Part.EDGE)
    image = MosaicImage(2, MosaicKind.REFRESHED, 7, (1.5, -2.0), (1e-8, 1e-8))
    arrays = {"phase": np.arange(6, dtype=np.float32).reshape(2, 3)}
    shown: list[Decoded[Telemetry]] = []

    def step() -> bool:
        sender.send(image, arrays)
        if (event := viewer.receive(0.05)) is not None:
            shown.append(event)
        return bool(shown)

    wait_until(step)
    sender.send(WeightsApplied(9))
    sender.close()
    wait_until(lambda: bool(seen) and seen[-1][0].event == WeightsApplied(9))  # viewers may be told first
    hub.close()
    viewer.close()
    for telemetry, received in (seen[0], (shown[0].body, shown[0].arrays)):
        assert (telemetry.part, telemetry.rank, telemetry.event) == (Part.EDGE, 0, image)
        np.testing.assert_array_equal(received["phase"], arrays["phase"])
    lines = (tmp_path / "telemetry.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Telemetry).event for line in (lines[0], lines[-1])] == [
        image,
        WeightsApplied(9),
    ]
    assert sender.dropped == 0


def test_a_line_that_was_cut_short_when_the_hub_was_killed_spoils_no_other(
    network: NetworkSettings, tmp_path: Path
) -> None:
    jsonl = tmp_path / "telemetry.jsonl"
    whole = msgspec.json.encode(Telemetry(1.0, Part.EDGE, 0, WeightsApplied(1))) + b"\n"
    jsonl.write_bytes(whole + whole[:20])
    hub = TelemetryHub(network, jsonl=jsonl)
    sender = TelemetrySender(network, part=Part.EDGE)
    sender.send(WeightsApplied(2))
    wait_until(lambda: len(jsonl.read_bytes()) > 2 * len(whole))
    sender.close()
    hub.close()
    assert [telemetry.event for telemetry in TelemetryLog(jsonl)] == [WeightsApplied(1), WeightsApplied(2)]


def test_a_full_disk_keeps_no_event_from_the_callback(
    network: NetworkSettings, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Telemetry] = []
    hub = TelemetryHub(network, jsonl=Path("/dev/full"), on_event=lambda event, _: seen.append(event))
    sender = TelemetrySender(network, part=Part.EDGE)
    for version in range(3):
        sender.send(WeightsApplied(version))
    wait_until(lambda: len(seen) == 3)
    sender.close()
    hub.close()
    assert [record.getMessage() for record in caplog.records] == [
        "cannot write /dev/full (No space left on device): it will lack events"
    ]


def test_a_sender_without_a_hub_never_blocks_and_says_so_once(
    network: NetworkSettings, caplog: pytest.LogCaptureFixture
) -> None:
    sender = TelemetrySender(network, part=Part.EDGE)
    began_s = time.monotonic()
    for _ in range(10_050):
        sender.send(WeightsApplied(1))
    assert sender.dropped == 50
    assert caplog.text.count("nobody collects telemetry") == 1
    assert time.monotonic() - began_s < 20
    sender.close()


def test_images_for_a_hub_that_is_away_take_bounded_memory_and_other_events_wait(network: NetworkSettings) -> None:
    sender = TelemetrySender(network, part=Part.EDGE)
    image = {"phase": np.zeros(1 << 20, np.uint8)}
    for _ in range(100):
        sender.send(WeightsApplied(1), image)
        sender.send(WeightsApplied(2))
    assert sender.dropped == 100 - (ARRAYS_AWAY_BYTES >> 20)
    seen: list[int] = []
    hub = TelemetryHub(
        network,
        jsonl=Path("/dev/null"),
        on_event=lambda telemetry, arrays: seen.append(sum(array.nbytes for array in arrays.values())),
    )
    wait_until(lambda: len(seen) == 100 + (ARRAYS_AWAY_BYTES >> 20))
    sender.send(WeightsApplied(3), image)
    wait_until(lambda: seen[-1] == 1 << 20)
    sender.close()
    hub.close()


def test_a_line_that_the_disk_took_half_of_does_not_spoil_the_next(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")
    write, lengths = hub._file.write, iter([10])
    monkeypatch.setattr(
        hub, "_file", SimpleNamespace(write=lambda line: write(line[: next(lengths, len(line))]), tell=hub._file.tell)
    )
    for version in range(3):
        hub._append(Telemetry(1.0, Part.EDGE, 0, WeightsApplied(version)))
    monkeypatch.undo()
    hub.close()
    events = [telemetry.event for telemetry in TelemetryLog(tmp_path / "telemetry.jsonl")]
    assert events == [WeightsApplied(1), WeightsApplied(2)]


def test_a_hub_closes_while_a_part_goes_on_sending(network: NetworkSettings, tmp_path: Path) -> None:
    hub = TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")
    ended = threading.Event()

    def send() -> None:
        with closing(TelemetrySender(network, part=Part.EDGE)) as sender:
            while not ended.wait(0.02):
                sender.send(WarningRaised("again"))

    part = threading.Thread(target=send)
    part.start()
    wait_until(lambda: (tmp_path / "telemetry.jsonl").stat().st_size > 0)
    closer = threading.Thread(target=hub.close)
    closer.start()
    closer.join(10.0)
    was_closed = not closer.is_alive()
    ended.set()
    part.join()
    closer.join()
    assert was_closed
