"""A receiver that does not read for a while outlives its sender, whatever waits to be read."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import zmq
from support import wait_until

from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import HEARTBEAT_INTERVAL_MS, Sockets

MESSAGE = bytes(1 << 20)
QUEUED = 4
"""Messages on either side."""
READER = """
import sys, zmq
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets
network = NetworkSettings.model_validate_json(sys.argv[1])
with Sockets(network) as sockets:
    if sys.argv[2] == "pull":
        socket = sockets.connect(zmq.PULL, network.acquisition_host, network.frames_port)
    else:
        socket = sockets.connect(zmq.SUB, network.acquisition_host, network.frames_port)
        socket.subscribe(b"")
    socket.recv()
    print("reads no more", flush=True)
    sys.stdin.readline()
    count = 0
    while socket.poll(500):
        socket.recv()
        count += 1
    print(count, flush=True)
"""


@contextlib.contextmanager
def reader(network: NetworkSettings, kind: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", READER, network.model_dump_json(), kind]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("kind", "sends"), [("pull", zmq.PUSH), ("sub", zmq.XPUB)])
def test_a_receiver_that_does_not_read_outlives_its_sender(network: NetworkSettings, kind: str, sends: int) -> None:
    network = network.model_copy(update={"high_water_mark": QUEUED})
    with reader(network, kind) as process, Sockets(network) as sockets:
        assert process.stdout is not None
        sender = sockets.bind(sends, network.acquisition_host, network.frames_port)
        sender.setsockopt(zmq.SNDTIMEO, 1000)
        if sends == zmq.XPUB:
            sender.setsockopt(zmq.XPUB_NODROP, 1)
            wait_until(lambda: bool(sender.poll(100)))
            sender.recv()
        else:
            wait_until(lambda: bool(sender.poll(100, zmq.POLLOUT)))

        def full() -> bool:
            try:
                sender.send(MESSAGE)
            except zmq.Again:
                return True
            return False

        wait_until(full)
        assert process.stdout.readline() == "reads no more\n"
        sockets.release(sender)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=3 * HEARTBEAT_INTERVAL_MS / 1000)
        assert process.poll() is None
        out, err = process.communicate("read\n", timeout=30)
        assert int(out) >= QUEUED - 1
        assert (process.returncode, err) == (0, "")
