"""What the doctor says, of this host as it is and of what is wrong with it."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from rich.console import Console

from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.events import Part, PartState, PartStatus, Telemetry
from ptychoflow.streaming.keys import make_keys
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.workflow.cli import run_command_line
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.configuration.run_settings import RunSettings
from ptychoflow.workflow.doctor import disk, examination
from ptychoflow.workflow.doctor.clocks import look_at_clocks
from ptychoflow.workflow.doctor.disk import look_at_disk
from ptychoflow.workflow.doctor.examination import show
from ptychoflow.workflow.doctor.finding import Finding, Light, green, red
from ptychoflow.workflow.doctor.hosts import look_at_interface, look_at_names, look_at_page, look_at_ports
from ptychoflow.workflow.doctor.keys import look_at_keys
from ptychoflow.workflow.doctor.software import look_at_gpus, look_at_ucx

TOPICS = ["versions", "GPU", "UCX", "interface", "names", "ports", "keys", "disk", "clocks"]
AWAY = "192.0.2.77"
"""An address kept for documentation: no host has it."""


def config(*assignments: str):
    return load_config("simulated", assignments=assignments)


def lights(*findings: Finding) -> list[Light]:
    return [one.light for one in findings]


def test_a_host_as_it_is_has_nothing_red_and_every_matter_has_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["doctor"]) == 0
    printed = capfd.readouterr().out
    lines = [line.split(maxsplit=2) for line in printed.splitlines()]
    assert list(dict.fromkeys(topic for _, topic, _ in lines)) == TOPICS
    assert {light for light, _, _ in lines} <= {"green", "yellow"}
    assert "\x1b" not in printed
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_anything_red_is_exit_status_1_and_the_rest_is_still_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examination, "look_at_clocks", partial(look_at_clocks, listen_s=0.1))
    Path("my.toml").write_text(
        '[source]\nkind = "simulation"\n[network]\nkeys_dir = "nowhere"\nfanout_port = 7005\ninterface = "ib7"\n'
    )
    assert run_command_line(["doctor", "--config", "my.toml"]) == 1
    said = {line.split()[1]: line for line in capfd.readouterr().out.splitlines()}
    assert list(said) == TOPICS
    assert said["interface"].startswith("red")
    assert said["keys"].startswith("red")
    assert "ptychoflow keys nowhere" in said["keys"]
    assert said["clocks"].startswith("yellow")


def test_on_a_terminal_lights_have_their_colours() -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, color_system="standard", width=20)
    assert show([green("disk", "room"), red("keys", "none\nat all, " + 10 * "whatever ")], console) == 1
    first, second, rest = terminal.getvalue().split("\n")
    assert (first[:2], second[:2], rest) == ("\x1b[", "\x1b[", "")
    assert "32m" in first
    assert "31m" in second


def test_what_the_configuration_demands_of_gpus_and_ucx_and_is_not_there_is_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert lights(*look_at_gpus(config())) == [Light.YELLOW]
    (gpu,) = look_at_gpus(config("trainer.device=cuda"))
    assert gpu.light is Light.RED
    assert "trainer.device" in gpu.text
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert lights(*look_at_ucx(config()), *look_at_ucx(config("trainer.buffer.transport=ucx"))) == [
        Light.YELLOW,
        Light.RED,
    ]


def test_the_transports_that_ucx_picks_from_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ucxx")
    (found,) = look_at_ucx(config())
    assert found.light is Light.GREEN
    assert "tcp/lo" in found.text
    monkeypatch.setenv("UCX_TLS", "telepathy")
    (none,) = look_at_ucx(config("trainer.buffer.transport=ucx"))
    assert none.light is Light.RED
    assert "UCX_TLS" in none.text


def test_the_interface_is_the_one_that_the_ranks_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**network: str) -> str:
        (finding,) = look_at_interface(NetworkSettings(**network))
        return f"{finding.light} {finding.text}"

    assert said().startswith("green lo ")
    assert said(interface="127.0.0.0/8").startswith("green lo ")
    assert said(interface="ib7").startswith("red ")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib7")
    assert said().startswith("red ib7 (GLOO_SOCKET_IFNAME)")


def test_names_that_stand_for_nothing_are_red() -> None:
    for name in ("node1.invalid", "node1..lab"):
        good, bad = look_at_names(NetworkSettings(trainer_host=name))
        assert good.light is Light.GREEN
        assert bad.light is Light.RED
        assert f"network.trainer_host = {name}" in bad.text


def test_ports_are_free_or_in_use_or_must_be_fixed(network: NetworkSettings) -> None:
    assert lights(*look_at_ports(NetworkSettings(), ranks=2)) == [Light.GREEN]
    (zero, *_) = look_at_ports(NetworkSettings(hub_host=AWAY), ranks=1)
    assert zero.light is Light.RED
    assert "network.frames_port" in zero.text
    (free,) = look_at_ports(network, ranks=2)
    assert free.light is Light.GREEN
    assert str(network.samples_port + 1) in free.text
    with socket.create_server(("127.0.0.1", network.samples_port + 1)):
        (taken,) = look_at_ports(network, ranks=2)
    assert taken.light is Light.YELLOW
    assert f"network.samples_port = {network.samples_port + 1}" in taken.text
    (beyond,) = look_at_ports(network.model_copy(update={"samples_port": 65535}), ranks=2)
    assert beyond.light is Light.RED
    assert "above 65535" in beyond.text


def test_a_page_whose_port_is_in_use_is_told_where_it_would_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examination, "look_at_clocks", partial(look_at_clocks, listen_s=0.1))
    Path("my.toml").write_text('[source]\nkind = "simulation"\n')

    def said(*settings: str) -> str:
        options = [word for setting in settings for word in ("--set", setting)]
        run_command_line(["doctor", "--config", "my.toml", *options])
        return capfd.readouterr().out

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = f"dashboard.port={taken.getsockname()[1]}"
        told = f"yellow  ports      in use on this host: {port.replace('=', ' = ')}"
        assert told in said(port)
        assert told not in said(port, "dashboard.enabled=false")
        assert told not in said(port, f"network.hub_host={AWAY}", f"network.acquisition_host={AWAY}")
    assert told not in said(port)


def test_a_page_on_an_address_that_is_not_this_hosts_is_red_and_its_port_is_not_in_use() -> None:
    for port in (0, 8421):
        (found,) = look_at_page(DashboardSettings(host=AWAY, port=port), NetworkSettings())
        assert found.light is Light.RED
        assert found.text.startswith(f"dashboard.host = {AWAY}: this host cannot listen there: ")


@pytest.mark.parametrize(
    ("end", "light"),
    [
        (None, Light.GREEN),
        (ConnectionRefusedError(111, "refused"), Light.YELLOW),
        (TimeoutError(), Light.RED),
        (OSError(113, "no route"), Light.RED),
    ],
)
def test_hosts_elsewhere_are_reached_or_not(
    network: NetworkSettings, monkeypatch: pytest.MonkeyPatch, end: OSError | None, light: Light
) -> None:
    def connect(address: tuple[str, int], _timeout_s: float) -> socket.socket:
        assert address == (AWAY, network.weights_port)
        if end is not None:
            raise end
        return socket.socket()

    monkeypatch.setattr("socket.create_connection", connect)
    far, own = look_at_ports(network.model_copy(update={"trainer_host": AWAY}), ranks=1)
    assert (far.light, own.light) == (light, Light.GREEN)
    assert f"{AWAY}" in far.text


def test_keys_must_be_there_and_nobody_elses(tmp_path: Path) -> None:
    (missing,) = look_at_keys(NetworkSettings(hub_host=AWAY))
    assert missing.light is Light.RED
    make_keys(tmp_path / "keys")
    network = NetworkSettings(keys_dir=tmp_path / "keys", hub_host=AWAY)
    assert lights(*look_at_keys(network)) == [Light.GREEN]
    secret = next((tmp_path / "keys").rglob("*.key_secret"))
    secret.chmod(0o644)
    (exposed,) = look_at_keys(network)
    assert exposed.light is Light.RED
    assert "644" in exposed.text


def test_the_disk_has_room_and_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finding() -> Finding:
        (found,) = look_at_disk(RunSettings(directory=tmp_path / "not" / "yet").context())
        return found

    sizes = {Light.GREEN: 50, Light.YELLOW: 5, Light.RED: 0.5}
    for light, gib in sizes.items():
        usage = SimpleNamespace(free=gib * disk.GIB)
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path, usage=usage: usage)
        assert finding().light is light
    monkeypatch.setattr(disk.tempfile, "NamedTemporaryFile", _refused)
    assert finding().light is Light.RED
    assert not list(tmp_path.iterdir())


def _refused(**_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("ahead_s", "light"), [(0.0, Light.GREEN), (3600.0, Light.YELLOW), (-3600.0, Light.YELLOW)])
def test_clocks_of_the_parts_that_speak_are_compared(
    network: NetworkSettings, tmp_path: Path, ahead_s: float, light: Light
) -> None:
    with closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")), speaking_edge(network, ahead_s):
        (found,) = look_at_clocks(network, listen_s=2.0)
    assert found.light is light, found.text
    assert "edge" in found.text


def test_a_word_that_comes_late_is_no_clock_that_is_behind(network: NetworkSettings, tmp_path: Path) -> None:
    """As where its host, or this one, stood still for a moment."""
    with closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")), speaking_edge(network, 0.0, late_s=5.0):
        (found,) = look_at_clocks(network, listen_s=2.0)
    assert found.light is Light.GREEN, found.text


@contextmanager
def speaking_edge(network: NetworkSettings, ahead_s: float, *, late_s: float = 0.0) -> Iterator[None]:
    """Let an edge speak whose clock is ahead; all its words but every fifth come late."""
    ended = threading.Event()

    def speak() -> None:
        with Sockets(network) as sockets:
            hub = sockets.connect(zmq.DEALER, network.hub_host, network.telemetry_port)
            for number in count():
                if ended.wait(0.1):
                    return
                said_s = time.time() + ahead_s - (late_s if number % 5 else 0.0)
                told = Telemetry(said_s, Part.EDGE, 0, PartStatus(PartState.RUNNING))
                hub.send_multipart(Codec(Telemetry).encode(told))

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
