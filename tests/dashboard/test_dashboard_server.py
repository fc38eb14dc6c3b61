import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from odd_viewers import OddViewers
from speaking import telemetry
from support import free_ports, wait_until
from telemetry_samples import acquired, mosaic, ramp, step
from websockets.sync.client import connect

from ptychoflow.dashboard import http_connection
from ptychoflow.dashboard.server import MAX_CONNECTIONS, serve_dashboard
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.streaming import seldom
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import MosaicKind, Part, RankCounts, WarningRaised
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
    sender = TelemetrySender(network, part=Part.TRAINER)
    yield sender
    sender.close()


def test_telemetry_reaches_the_page_and_its_viewers(network, tmp_path, sender):
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: [part["part"] for part in state["present"]["parts"]] == ["dashboard"])
        with connect(f"ws://{served.address}/ws", origin=f"http://{served.address}") as viewer:
            assert json.loads(viewer.recv(PATIENCE_S))["present"]["frames"]["acquired"] == 0
            sender.send(acquired(100))
            sender.send(RankCounts(72, 8, 0, 0))
            sender.send(*mosaic(0, MosaicKind.FIRST_PASS, ramp(), ramp()))
            present = {"mosaics": []}
            while not present["mosaics"]:
                present = json.loads(viewer.recv(PATIENCE_S))["present"]
        assert (present["frames"]["acquired"], present["frames"]["lost"]) == (100, 0)
        answer = httpx.get(f"http://{served.address}/api/mosaics/0/first_pass/phase.npy")
        assert np.frombuffer(answer.content[-ramp().nbytes :], np.float32).tolist() == ramp().ravel().tolist()


def test_a_notebook_gets_the_newest_image_in_the_three_lines_of_the_manual(network, tmp_path, sender):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "images-in-a-notebook.md").read_text()
    (lines,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "urlopen" in block)
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
                sender.send(WarningRaised(f"{number} " + "x" * 20_000))
                sender.send(step(number))
            deadline = time.monotonic() + PATIENCE_S
            while latest < 400 and time.monotonic() < deadline:
                training = json.loads(viewer.recv(PATIENCE_S))["present"]["training"]
                latest = training["step"] if training else 0
            assert latest == 400
            assert served.state()["present"]["training"]["step"] == 400


def slow_viewer(address: str) -> AbstractContextManager[socket.socket]:
    """A viewer that asks for updates and never reads one."""
    return slow_client(
        address,
        "GET /ws HTTP/1.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
    )


@contextmanager
def slow_client(address: str, request: str, *headers: str) -> Iterator[socket.socket]:
    """A client that asks for something and never reads it; its receive buffer is as small as it gets."""
    host, port = address.split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.connect((host, int(port)))
    client.sendall("".join(f"{line}\r\n" for line in (request, f"Host: {address}", *headers, "")).encode())
    with client:
        yield client


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


def test_a_dashboard_started_amid_events_takes_each_of_them_once(network, tmp_path, hub, sender):
    steps = 300
    for number in range(steps // 3):
        sender.send(step(number))
    with dashboard(network, tmp_path, series_points=2 * steps) as served:
        for number in range(steps // 3, steps):
            sender.send(step(number))
            time.sleep(0.02)  # so that they come before, while and after the dashboard reads and subscribes
        state = served.wait_until(lambda state: (state["present"]["training"] or {}).get("step") == steps - 1)
        state = served.wait_until(lambda state: len(state["series"]["training"]["columns"]["step"]) >= steps)
    assert sorted(state["series"]["training"]["columns"]["step"]) == list(map(float, range(steps)))


def test_an_event_with_an_image_is_taken_though_the_file_holds_it_without(network, tmp_path, hub, sender):
    for number in range(50):
        sender.send(step(number))
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: state["present"]["training"])
        sender.send(*mosaic(3, MosaicKind.FIRST_PASS, ramp(), ramp()))
        state = served.wait_until(lambda state: state["present"]["mosaics"])
    assert [row["perspective"] for row in state["present"]["mosaics"]] == [3], "the file holds no images"


def test_a_file_left_by_another_run_hides_nothing_of_this_one(network, tmp_path, sender):
    (tmp_path / "stale").mkdir()
    (tmp_path / "stale" / "telemetry.jsonl").write_bytes((msgspec.json.encode(telemetry(acquired(9))) + b"\n") * 500)
    with dashboard(network, tmp_path / "stale") as served:
        served.wait_until(lambda state: len(state["present"]["parts"]) == 2)
        sender.send(step(5))
        served.wait_until(lambda state: (state["present"]["training"] or {}).get("step") == 5)


def test_a_clock_that_was_set_back_hides_no_event_of_the_history(network, tmp_path):
    past = [telemetry(step(number), time_s=100.0 - number) for number in range(5)]
    (tmp_path / "telemetry.jsonl").write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in past))
    with dashboard(network, tmp_path) as served:
        served.wait_until(lambda state: (state["present"]["training"] or {}).get("step") == 4)


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


@pytest.mark.parametrize(
    "beginning", [b"", b"GET /api/st", b"POST /api/commands HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"]
)
def test_connections_that_ask_for_nothing_shut_nobody_out(network, tmp_path, beginning):
    with dashboard(network, tmp_path) as served, ExitStack() as stack:
        served.wait_until(lambda _: True)
        host, port = served.address.split(":")
        for _ in range(MAX_CONNECTIONS + 40):
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_S))
            one.sendall(beginning)
        assert httpx.get(f"http://{served.address}/api/state", timeout=PATIENCE_S).status_code == 200
        with connect(f"ws://{served.address}/ws", open_timeout=PATIENCE_S) as viewer:
            assert json.loads(viewer.recv(PATIENCE_S))["present"]["run"] == "night"


def test_viewers_that_break_the_protocol_say_too_much_or_go_without_a_word_harm_nobody(network, tmp_path, sender):
    with dashboard(network, tmp_path) as served, ExitStack() as stack:
        served.wait_until(lambda state: state["present"]["parts"])
        host, port = served.address.split(":")
        odd = stack.enter_context(closing(OddViewers(host, int(port), seed=20)))
        with connect(f"ws://{served.address}/ws", max_size=None) as viewer:
            for number in range(1, 4):
                odd.come(40)
                sender.send(step(number))
                while (json.loads(viewer.recv(PATIENCE_S))["present"]["training"] or {}).get("step") != number:
                    pass
        odd.close()
        wait_until(lambda: odd.fault() is None)


def test_a_flood_of_what_is_refused_does_not_fill_the_log(network, tmp_path, hub, caplog, monkeypatch):
    monkeypatch.setattr(seldom, "PERIOD_S", 0.5)
    with dashboard(network, tmp_path) as served, httpx.Client(base_url=f"http://{served.address}") as client:
        served.wait_until(lambda _: True)

        def ask_in_vain() -> None:
            assert client.post("/api/commands/stop_run", headers={"Authorization": "Bearer x"}).status_code == 401
            host, port = served.address.split(":")
            with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as one:
                one.sendall(b"no request\r\n\r\n")
                assert b"400" in one.recv(100)

        began_s = time.monotonic()
        for _ in range(60):
            ask_in_vain()
        periods = (time.monotonic() - began_s) // 0.5 + 1
        said = [record.getMessage() for record in caplog.records]
        for words in ("no token, or a wrong one", "Invalid HTTP request"):
            assert 1 <= sum(words in text for text in said) <= periods + 1
        wait_until(lambda: ask_in_vain() or any("more since the last" in one.getMessage() for one in caplog.records))


def test_a_flood_of_viewers_that_never_read_shuts_no_request_out(network, tmp_path):
    with dashboard(network, tmp_path) as served, ExitStack() as stack:
        served.wait_until(lambda _: True)
        for _ in range(MAX_CONNECTIONS + 40):
            stack.enter_context(slow_viewer(served.address))
        assert httpx.get(f"http://{served.address}/api/state", timeout=PATIENCE_S).status_code == 200


def test_answers_that_nobody_reads_do_not_fill_the_memory(network, tmp_path, sender, monkeypatch):
    image, clients = np.zeros((1500, 1500), np.float32), 24
    monkeypatch.setattr(http_connection, "UNREAD_BYTES", 4 * image.nbytes)
    with dashboard(network, tmp_path) as served, ExitStack() as stack:
        served.wait_until(lambda state: state["present"]["parts"])
        sender.send(*mosaic(0, MosaicKind.FIRST_PASS, image, image))
        served.wait_until(lambda state: state["present"]["mosaics"])
        request = "GET /api/mosaics/0/first_pass/phase.npy HTTP/1.1", "Connection: close"
        slow = [stack.enter_context(slow_client(served.address, *request)) for _ in range(clients)]
        wait_until(lambda: len(select.select(slow, [], [], 0)[0]) == clients)
        assert len(httpx.get(f"http://{served.address}/api/mosaics/0/first_pass/phase.npy").content) > image.nbytes
        waited_for = sum(len(read_all(client)) > image.nbytes for client in slow)
    # the kernel's own buffers hold some of each
    assert 1 <= waited_for <= 8


def read_all(client: socket.socket) -> bytes:
    client.settimeout(PATIENCE_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    with client.makefile("rb") as file:
        return file.read()
