"""Sockets in a folder: nobody but the user who runs reaches them, whatever ports there are."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq
from listening import addresses_listened_at
from support import wait_until

from ptychoflow.streaming.commands import AnyCommand, CommandHub, CommandSender, StopRun
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PartState, PartStatus
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import Frames
from ptychoflow.streaming.private_folder import RUNTIME_VARIABLE, private_folder
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import PORT_FIELDS, NetworkSettings
from ptychoflow.streaming.sockets import Sockets
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender
from ptychoflow.streaming.weights_channel import WeightsServer

NOBODY = 65_534


@pytest.fixture
def folder() -> Iterator[Path]:
    with private_folder() as made:
        yield made


@pytest.fixture
def network(folder: Path) -> NetworkSettings:
    return NetworkSettings(sockets_dir=folder)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as open_things:
        yield open_things


@pytest.fixture
def elsewhere() -> set[str]:
    """Where this process listens for other tests."""
    return addresses_listened_at([psutil.Process()])


@pytest.fixture
def run(elsewhere: set[str], network: NetworkSettings, stack: ExitStack, tmp_path: Path) -> list[AnyCommand]:
    """Everything of a run that listens; the commands that it takes in."""
    heard: list[AnyCommand] = []
    stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    stack.enter_context(closing(TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")))
    stack.enter_context(closing(WeightsServer(network)))
    publisher = stack.enter_context(Publisher(network, spool_dir=tmp_path / "spool", memory_bytes=1 << 20))
    inbox = stack.enter_context(Inbox(network, consumer="rank-0", port=network.samples_port, world_size=1))
    wait_until(lambda: publisher.pump(0.0) is None and publisher.world_size == 1 and inbox.receive(0.0) is None)
    return heard


def test_nothing_listens_on_a_port(run: list[AnyCommand], elsewhere: set[str], folder: Path) -> None:
    assert addresses_listened_at([psutil.Process()]) <= elsewhere
    assert len([path for path in folder.iterdir() if path.is_socket()]) == len(PORT_FIELDS)


def test_another_user_cannot_command_or_read(run: list[AnyCommand], network: NetworkSettings, folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    if os.geteuid() != 0:
        pytest.skip("to be another user needs root")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for name in PORT_FIELDS:
            with socket.socket(socket.AF_UNIX) as stranger:
                try:
                    stranger.connect(f"{folder}/{getattr(network, name)}")
                except PermissionError:
                    os.write(writing, b"-")
                else:
                    os.write(writing, b"+")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"-" * len(PORT_FIELDS)
    for end in (reading, writing):
        os.close(end)
    with closing(CommandSender(network)) as sender:
        sender.send(StopRun())
    wait_until(lambda: run == [StopRun()])


def test_a_stream_goes_through_and_keys_have_no_part_in_it(folder: Path, tmp_path: Path) -> None:
    network = NetworkSettings(sockets_dir=folder, keys_dir=tmp_path / "there are none")
    pattern = np.arange(4, dtype=np.uint16).reshape(1, 2, 2)
    with (
        Publisher(network, spool_dir=tmp_path / "spool", memory_bytes=1 << 20, trainer=False) as publisher,
        Inbox(network, consumer="edge", port=network.frames_port) as inbox,
    ):
        publisher.post_to_edge(Frames(0, 0.0, 0.0), {"diffraction": pattern})
        deliveries = []

        def arrived() -> bool:
            publisher.pump(0.0)
            deliveries.append(inbox.receive(0.01))
            return deliveries[-1] is not None

        wait_until(arrived)
        assert deliveries[-1] is not None
        assert np.array_equal(deliveries[-1].arrays["diffraction"], pattern)


def test_who_listens_already_is_not_pushed_aside_and_one_that_was_killed_is_followed(
    network: NetworkSettings, folder: Path
) -> None:
    with Sockets(network) as first:
        first.bind(zmq.PULL, network.hub_host, network.commands_port)
        with Sockets(network) as second:
            line = rf"cannot listen on {folder}/{network.commands_port}: Address already in use"
            with pytest.raises(UserError, match=line):
                second.bind(zmq.PULL, network.hub_host, network.commands_port)
    place = folder / str(network.commands_port)
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place))
    with Sockets(network) as third:
        third.bind(zmq.PULL, network.hub_host, network.commands_port)


def test_whoever_comes_first_waits_for_the_other(network: NetworkSettings, tmp_path: Path) -> None:
    with closing(TelemetrySender(network, part=Part.EDGE)) as sender:
        sender.send(PartStatus(PartState.RUNNING))
        log = tmp_path / "telemetry.jsonl"
        with closing(TelemetryHub(network, jsonl=log)):
            wait_until(lambda: b"running" in log.read_bytes())


def test_a_folder_that_others_can_enter_is_refused_with_the_command_to_run(folder: Path) -> None:
    folder.chmod(0o750)
    network = NetworkSettings(sockets_dir=folder)
    with (
        Sockets(network) as sockets,
        pytest.raises(UserError, match=rf"other users can enter {folder}: chmod 700 {folder}"),
    ):
        sockets.connect(zmq.PUSH, network.hub_host, network.commands_port)
    folder.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="to give a folder away needs root")
def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    network = NetworkSettings(sockets_dir=folder)
    with Sockets(network) as sockets, pytest.raises(UserError, match="belongs to another user"):
        sockets.connect(zmq.PUSH, network.hub_host, network.commands_port)


def test_a_folder_is_made_where_there_is_none_and_too_long_a_path_is_one_line(tmp_path: Path) -> None:
    network = NetworkSettings(sockets_dir=tmp_path / "new")
    with Sockets(network) as sockets:
        sockets.connect(zmq.PUSH, network.hub_host, network.commands_port)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    with pytest.raises(ValueError, match="too long for sockets: choose another"):
        NetworkSettings(sockets_dir=tmp_path / ("x" * 120))


def test_a_folder_is_for_one_host(folder: Path) -> None:
    with pytest.raises(ValueError, match="sockets_dir is for parts that are all on one host"):
        NetworkSettings(sockets_dir=folder, trainer_host="10.0.0.2")


def test_private_folders_have_short_paths_and_are_gone_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, str(tmp_path / ("x" * 80)))
    (tmp_path / ("x" * 80)).mkdir()
    with private_folder() as one:
        assert len(str(one)) < 80
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        (one / "file").touch()
    assert not one.exists()
    monkeypatch.setenv(RUNTIME_VARIABLE, str(tmp_path / "not there"))
    with private_folder() as one:
        assert one.exists()
