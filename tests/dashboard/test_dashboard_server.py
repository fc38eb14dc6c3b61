import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from support import free_ports
from telemetry_samples import acquired, mosaic, ramp, step, telemetry
from websockets.sync.client import connect

from ptychoflow.dashboard.server import serve_dashboard
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import MosaicKind, Part, RankCounts, Telemetry, WarningRaised
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender

PATIENCE_S = 20.0
TOKEN = "the token"


class Served:
    def __init__(self, settings: DashboardSettings, network: NetworkSettings, directory: Path) -> None:
        self.stop = threading.Event()
        self.address = f"127.0.0.1:{settings.port}"
        self.thread = threading.Thread(target=self._run, args=(settings, network, directory))
        self.thread.start()

    def _run(self, settings: DashboardSettings, network: NetworkSettings, directory: Path) -> None:
        run = RunContext("night", directory, 0)
        serve_dashboard(settings, network=network, run=run, stop=self.stop, token=TOKEN)

    def state(self) -> dict:
        return httpx.get(f"http://{self.address}/api/state").json()

    def wait_until(self, condition) -> dict:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                state = self.state()
                if condition(state):
                    return state
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError("the condition did not come true in time")


@contextmanager
def dashboard(network: NetworkSettings, directory: Path, **settings) -> Iterator[Served]:
    (port,) = free_ports(1)
    served = Served(DashboardSettings(port=port, update_interval_s=0.02, **settings), network, directory)
    try:
        yield served
    finally:
        served.stop.set()
        served.thread.join(PATIENCE_S)
    assert not served.thread.is_alive()
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.fixture
def hub(network, tmp_path):
    hub = TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")
    yield hub
    hub.close()


@pytest.fixture
def sender(network, hub):
    sender = TelemetrySender(network, sender="test")
    yield sender
    sender.close()


def test_telemetry_reaches_the_page_and_its_viewers(network, tmp_path, sender):
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: [part["part"] for part in state["present"]["parts"]] == ["dashboard"])
        with connect(f"ws://{served.address}/ws", origin=f"http://{served.address}") as viewer:
            assert json.loads(viewer.recv(PATIENCE_S))["present"]["frames"]["acquired"] == 0
            sender.send(acquired(100))
            sender.send(RankCounts(0, 72, 8, 0, 0))
            sender.send(*mosaic(0, MosaicKind.FIRST_PASS, ramp(), ramp()))
            present = {"mosaics": []}
            while not present["mosaics"]:
                present = json.loads(viewer.recv(PATIENCE_S))["present"]
        assert (present["frames"]["acquired"], present["frames"]["lost"]) == (100, 0)
        answer = httpx.get(f"http://{served.address}/api/mosaics/0/first_pass/phase.npy")
        assert np.frombuffer(answer.content[-ramp().nbytes :], np.float32).tolist() == ramp().ravel().tolist()


def test_a_notebook_gets_the_newest_image_in_the_three_lines_of_the_readme(network, tmp_path, sender):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (lines,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "urlopen" in block)
    assert len([line for line in lines.splitlines() if line]) == 3
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: state["present"]["parts"])
        sender.send(*mosaic(3, MosaicKind.FIRST_PASS, ramp(), ramp()))
        served.wait_until(lambda state: state["present"]["mosaics"])
        names: dict[str, np.ndarray] = {}
        exec(lines.replace("127.0.0.1:8421", served.address), names)
    np.testing.assert_array_equal(names["phase"], ramp())


def test_a_viewer_that_never_reads_delays_nobody(network, tmp_path, sender):
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: state["present"]["parts"])
        with slow_viewer(served.address), connect(f"ws://{served.address}/ws", max_size=None) as viewer:
            latest = 0
            for number in range(1, 401):
                sender.send(WarningRaised(Part.EDGE, f"{number} " + "x" * 20_000))
                sender.send(step(number))
            deadline = time.monotonic() + PATIENCE_S
            while latest < 400 and time.monotonic() < deadline:
                training = json.loads(viewer.recv(PATIENCE_S))["present"]["training"]
                latest = training["step"] if training else 0
            assert latest == 400
            assert served.state()["present"]["training"]["step"] == 400


@contextmanager
def slow_viewer(address: str) -> Iterator[socket.socket]:
    """A viewer that asks for updates and never reads one; its receive buffer is as small as it gets."""
    host, port = address.split(":")
    viewer = socket.socket()
    viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    viewer.connect((host, int(port)))
    viewer.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    with viewer:
        yield viewer


def test_a_dashboard_started_late_shows_what_the_folder_holds(network, tmp_path, hub, sender):
    log = tmp_path / "telemetry.jsonl"
    past = [telemetry(step(n, loss=1.0 / n), time_s=50.0 + n) for n in (1, 2, 3)]
    log.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in past) + b'{"time_s": 1, "sen\n')
    with dashboard(network, tmp_path) as served:
        state = served.wait_until(lambda state: state["present"]["training"])
        assert state["present"]["started_s"] == 51.0
        assert state["series"]["training"]["columns"]["step"] == [1.0, 2.0, 3.0]
        sender.send(step(4))
        state = served.wait_until(lambda state: state["present"]["training"]["step"] == 4)
        assert state["series"]["training"]["columns"]["step"] == [1.0, 2.0, 3.0, 4.0]


def test_an_event_that_came_before_the_subscription_did_is_read_later(network, tmp_path):
    log = tmp_path / "telemetry.jsonl"
    log.write_bytes(msgspec.json.encode(telemetry(step(1), time_s=50.0)) + b"\n")
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: state["present"]["training"])
        with log.open("ab") as file:
            file.write(msgspec.json.encode(telemetry(step(2), time_s=51.0)) + b"\n")
        state = served.wait_until(lambda state: state["present"]["training"]["step"] == 2)
        assert state["series"]["training"]["columns"]["step"] == [1.0, 2.0]


def test_events_that_the_history_already_holds_are_not_taken_twice(network, tmp_path):
    log = tmp_path / "telemetry.jsonl"
    log.write_bytes(msgspec.json.encode(Telemetry(2e9 * 10, "test", step(1))) + b"\n")
    hub = TelemetryHub(network, jsonl=tmp_path / "other.jsonl")

    def arrived(present: dict) -> bool:
        return present["frames"]["acquired"] == 7 and bool(present["mosaics"])

    sender, other = TelemetrySender(network, sender="test"), TelemetrySender(network, sender="other")
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: len(state["present"]["parts"]) == 2)
        sender.send(step(5))
        sender.send(*mosaic(3, MosaicKind.FIRST_PASS, ramp(), ramp()))
        time_limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < time_limit and not arrived(served.state()["present"]):
            other.send(acquired(7))
        state = served.state()
    assert state["present"]["frames"]["acquired"] == 7
    assert state["present"]["training"]["step"] == 1
    assert [row["perspective"] for row in state["present"]["mosaics"]] == [3], "the file holds no images"
    for closing in (sender, other, hub):
        closing.close()


def test_a_port_in_use_is_one_clear_line(network, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = DashboardSettings(port=taken.getsockname()[1])
        with pytest.raises(
            UserError, match=rf"cannot listen on 127\.0\.0\.1:{settings.port}: .*in use.*dashboard\.port"
        ):
            run = RunContext("night", tmp_path, 0)
            serve_dashboard(settings, network=network, run=run, stop=threading.Event(), token=TOKEN)


def test_listening_to_everybody_is_announced(network, tmp_path, hub, caplog):
    with dashboard(network, tmp_path, host="0.0.0.0") as served:
        served.wait_until(lambda state: state["present"]["parts"])
    assert "not on loopback" in caplog.text
