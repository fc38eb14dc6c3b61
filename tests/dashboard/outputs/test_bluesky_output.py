"""Bluesky documents: validated by event-model, and heeded by a plan of a RunEngine."""

from __future__ import annotations

import json
import math
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from output_news import FIRST_PASS, REFRESHED, SCAN, news, serving
from peers import peer_python
from support import free_ports, wait_until
from telemetry_samples import quality, scores

from ptychoflow.dashboard.outputs.bluesky import BlueskyOutput
from ptychoflow.dashboard.outputs.output import ConsumerAway
from ptychoflow.dashboard.outputs.settings import BlueskyOutputSettings, DocumentFormat, OutputsSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import HeldOutScores
from ptychoflow.streaming.settings import NetworkSettings

PEER = ("bluesky==1.15.1", "event-model==1.24.0", "msgpack==1.2.4", "pyzmq==27.3.0")
PLAN = Path(__file__).with_name("peer_bluesky.py")


def plan(python: Path, port: int, goal_db: float) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [python, PLAN, f"127.0.0.1:{port}", "ptycho", str(goal_db)], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "scanning\n"
    return started


def said(peer: subprocess.Popen[str]) -> Any:
    assert peer.stdout is not None
    return json.loads(peer.stdout.readline())


def test_a_plan_stops_on_a_score_and_its_documents_are_valid_also_for_one_that_comes_later(
    network: NetworkSettings, tmp_path: Path
) -> None:
    python = peer_python(*PEER)
    (port,) = free_ports(1)
    settings = OutputsSettings(bluesky=BlueskyOutputSettings(port=port, prefix="ptycho"))
    held_out = HeldOutScores(2, 57, quality(18.25), quality(11.0), 4)
    with serving(settings, network, tmp_path) as run:
        run.sender.send(SCAN)
        run.sender.send(scores(0, FIRST_PASS, 15.5))
        peer = plan(python, port, goal_db=20.0)
        run.sender.send(scores(1, FIRST_PASS, math.nan))
        run.sender.send(scores(1, FIRST_PASS, 20.125))
        assert said(peer) == ["perspective 1 reached 20.125 dB"]
        later = plan(python, port, goal_db=20.0)
        wait_until(lambda: _more(run.sender, 2, 22.0, later, peer))
        first = said(peer)
        run.sender.send(held_out)
        reasons = said(later)
    second = said(later)
    for documents in (first, second):
        kinds = [kind for kind, _ in documents]
        assert (kinds[0], kinds[1], kinds[-1]) == ("start", "descriptor", "stop")
        assert documents[0][1]["ptychoflow"] == {
            "run": "first", "source": "star", "energy_eV": 6200.0, "object_pixel_size_m": [9e-9, 8e-9],
            "perspectives": 3,
        }  # fmt: skip
    assert first[0][1]["uid"] != second[0][1]["uid"]
    assert first[-1][1]["reason"] == "somebody else listens from now on"
    assert reasons == ["perspective 2 reached 22.0 dB"]
    events = [document for kind, document in first if kind == "event"]
    assert [event["seq_num"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["data"] == {
        "perspective": 0, "frames": 400, "angle_deg": 1.5, "model_version": 1,
        "psnr_amplitude_db": 18.5, "psnr_phase_db": 15.5, "ssim_amplitude": 0.6, "ssim_phase": 0.5,
        "correlation_amplitude": 0.8, "correlation_phase": 0.7,
        "constant_psnr_amplitude_db": 12.0, "constant_psnr_phase_db": 9.0, "constant_ssim_amplitude": 0.6,
        "constant_ssim_phase": 0.5, "constant_correlation_amplitude": 0.8, "constant_correlation_phase": 0.7,
    }  # fmt: skip
    (descriptor,) = (document for kind, document in second if kind == "descriptor" and document["name"] == "held_out")
    (event,) = (
        document for kind, document in second if kind == "event" and document["descriptor"] == descriptor["uid"]
    )
    assert (event["data"]["psnr_phase_db"], event["data"]["frames"], event["data"]["model_version"]) == (18.25, 57, 4)
    assert second[-1][1]["num_events"]["held_out"] == 1


def _more(sender: Any, perspective: int, psnr_db: float, *peers: subprocess.Popen[str]) -> bool:
    """Tell a score once more; whether all peers have something to say."""
    sender.send(scores(perspective, FIRST_PASS, psnr_db))
    return all(_readable(peer) for peer in peers)


def _readable(peer: subprocess.Popen[str]) -> bool:
    assert peer.stdout is not None
    poller = zmq.Poller()
    poller.register(peer.stdout.fileno(), zmq.POLLIN)
    return bool(poller.poll(20))


@contextmanager
def listening(port: int, **options: int) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.linger = 0
        for name, value in options.items():
            setattr(subscriber, name, value)
        subscriber.connect(f"tcp://127.0.0.1:{port}")
        subscriber.subscribe(b"")
        yield subscriber


def documents(subscriber: zmq.Socket[bytes], timeout_s: float = 20.0) -> Iterator[tuple[str, Any]]:
    while subscriber.poll(int(1000 * timeout_s)):
        prefix, kind, document = subscriber.recv().split(b" ", 2)
        assert prefix == b""
        yield kind.decode(), msgspec.json.decode(document)


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def output(port: int) -> Iterator[BlueskyOutput]:
    settings = BlueskyOutputSettings(port=port, format=DocumentFormat.JSON)
    with closing(BlueskyOutput(settings, run="first")) as opened:
        yield opened


def send_when_heard(output: BlueskyOutput, perspective: int = 0, psnr_db: float = 20.0) -> None:
    def heard() -> bool:
        try:
            output.send(news(scores(perspective, REFRESHED, psnr_db)))
        except ConsumerAway:
            return False
        return True

    wait_until(heard)


def test_nothing_is_published_while_nobody_listens_and_a_restarted_listener_begins_anew(
    output: BlueskyOutput, port: int
) -> None:
    with pytest.raises(ConsumerAway, match=f"nobody listens at 127.0.0.1:{port}"):
        output.send(news(scores(0, REFRESHED, 20.0)))
    starts = []
    for perspective in range(2):
        with listening(port) as subscriber:
            send_when_heard(output, perspective)
            received = documents(subscriber)
            (_, start), _, (_, event) = (next(received) for _ in range(3))
            assert event["data"]["perspective"] == perspective
            assert event["seq_num"] == 1
            starts.append(start["uid"])
        wait_until(lambda: output._take_listeners_in() or output._listeners == 0)
    assert starts[0] != starts[1]


def test_figures_that_are_not_finite_are_null_in_json(output: BlueskyOutput, port: int) -> None:
    with listening(port) as subscriber:
        send_when_heard(output, psnr_db=math.nan)
        received = dict(documents(subscriber, 1.0))
    assert received["event"]["data"]["psnr_phase_db"] is None
    assert received["event"]["data"]["ssim_phase"] == 0.5


def test_who_never_reads_falls_behind_which_is_counted_and_who_reads_gets_all(output: BlueskyOutput, port: int) -> None:
    with listening(port, rcvhwm=1, rcvbuf=4096), listening(port) as reader:
        # both listen
        wait_until(lambda: output._take_listeners_in() or output._listeners == 2)
        received = (document for kind, document in documents(reader) if kind == "event")
        sent = further = 0
        while further < 2_000:
            sent += 1
            further += output.fell_behind
            assert sent < 100_000
            output.send(news(scores(sent, REFRESHED, 20.0)))
            document = next(received)
            assert (document["data"]["perspective"], document["seq_num"]) == (sent, sent)
    assert output.fell_behind == 1


def test_documents_go_to_a_proxy_where_there_is_one(port: int) -> None:
    settings = BlueskyOutputSettings(port=port, format=DocumentFormat.JSON, proxy=True)
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as proxy,
        closing(BlueskyOutput(settings, run="x")) as output,
    ):
        with pytest.raises(ConsumerAway):
            output.send(news(scores(0, REFRESHED, 20.0)))
        proxy.bind(f"tcp://127.0.0.1:{port}")
        proxy.subscribe(b"")
        received = queue.SimpleQueue[str]()
        # it takes connections in only while it waits for messages, as proxies do all the time
        reader = threading.Thread(target=lambda: received.put(next(documents(proxy))[0]))
        reader.start()
        send_when_heard(output)
        reader.join(30)
        assert received.get_nowait() == "start"


def test_a_port_in_use_is_refused_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = BlueskyOutputSettings(port=taken.getsockname()[1])
        with pytest.raises(UserError, match=r"outputs\.bluesky: cannot listen on 127\.0\.0\.1:\d+: Address already"):
            BlueskyOutput(settings, run="first")
