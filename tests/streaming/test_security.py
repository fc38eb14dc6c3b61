"""Keys: required off loopback, and nobody without them gets in."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zmq
from support import wait_until

from ptychoflow.streaming.access import Role
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.keys import make_keys
from ptychoflow.streaming.messages import Frames
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings, is_loopback
from ptychoflow.streaming.sockets import Sockets


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.9.9.9", True),
        ("192.168.0.1", False),
        ("a", False),
    ],
)
def test_loopback_is_recognised(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_off_loopback_needs_keys() -> None:
    with Sockets(NetworkSettings(acquisition_host="beamline.example")) as sockets:
        for open_socket in (sockets.bind, sockets.connect):
            with pytest.raises(UserError, match=r"beamline\.example is not loopback and needs keys"):
                open_socket(zmq.PUSH, "beamline.example", 5555)


def test_a_port_in_use_is_one_clear_line() -> None:
    with Sockets(NetworkSettings()) as sockets:
        taken = sockets.bind(zmq.PUSH, "127.0.0.1", 0)
        port = int(taken.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        with pytest.raises(UserError, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use"):
            sockets.bind(zmq.PUSH, "127.0.0.1", port)


TOO_MANY = """
import resource, zmq
from ptychoflow.streaming.access import Role
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets
with Sockets(NetworkSettings()) as sockets:
    sockets.connect(zmq.PULL, "127.0.0.1", 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    try:
        while True:
            sockets.connect(zmq.PULL, "127.0.0.1", 1)
    except UserError as error:
        print(error)
"""


def test_too_many_sockets_are_one_clear_line() -> None:
    ended = subprocess.run([sys.executable, "-c", TOO_MANY], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == (
        "cannot open another socket: Too many open files; raise the limit of open files (ulimit -n)\n"
    )


def test_keys_are_private_and_not_overwritten(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    for role in Role:
        assert stat.S_IMODE((tmp_path / "keys" / f"{role}.key_secret").stat().st_mode) == 0o600
        assert b"secret" not in (tmp_path / "keys" / "public" / f"{role}.key").read_bytes().replace(b"secret.", b"")
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {"public", *(f"{role}.key_secret" for role in Role)}
    with pytest.raises(UserError, match="holds keys already"):
        make_keys(tmp_path / "keys")


def test_a_folder_without_keys_is_named(tmp_path: Path) -> None:
    no_keys = pytest.raises(UserError, match=rf"{tmp_path} holds no positions.key_secret: copy it from the folder")
    with Sockets(NetworkSettings(keys_dir=tmp_path)) as sockets, no_keys:
        sockets.connect(zmq.PULL, "127.0.0.1", 5555)


def receives(publisher: Publisher, network: NetworkSettings, polls: int) -> bool:
    with Inbox(network, consumer="edge", port=network.frames_port) as inbox:
        for _ in range(polls):
            publisher.pump(0.0)
            if inbox.receive(0.01) is not None:
                return True
    return False


def test_only_the_holder_of_the_right_key_receives(network: NetworkSettings, tmp_path: Path) -> None:
    make_keys(tmp_path / "ours")
    make_keys(tmp_path / "theirs")
    ours = network.model_copy(update={"keys_dir": tmp_path / "ours"})
    theirs = network.model_copy(update={"keys_dir": tmp_path / "theirs"})
    with Publisher(ours, spool_dir=tmp_path / "spool", memory_bytes=1 << 20, trainer=False) as publisher:
        publisher.post_to_edge(Frames(0, 0.0, 0.0), {"diffraction": np.ones((1, 2, 2), np.uint16)})
        assert not receives(publisher, network, 50)
        assert not receives(publisher, theirs, 50)
        wait_until(lambda: receives(publisher, ours, 50))
