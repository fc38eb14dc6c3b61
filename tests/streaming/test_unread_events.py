"""What ZeroMQ tells of a connection that is made again and again has to be read, or it waits, and what it sends too."""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import closing
from socket import create_server
from types import SimpleNamespace
from typing import cast

import pytest
from streams import edge_inbox
from support import wait_until

from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Socket, Sockets
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.receiver import SampleReceiver

EVENTS_UNREAD = 2000
"""That ZeroMQ holds; an attempt makes two."""
STALLED_S = 1.0
CLOSED_WITHIN_S = 10.0


class Refusal:
    """Listens on a port and hangs up on whoever comes."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._listener = create_server(("127.0.0.1", port), backlog=64)
        self._last_s = time.monotonic()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def stalled(self) -> bool:
        """Nobody comes any more."""
        return self.connections > 100 and time.monotonic() - self._last_s > STALLED_S

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()
                self.connections += 1
                self._last_s = time.monotonic()


@pytest.fixture(autouse=True)
def _connects_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour of attempts, one a second, in a few seconds."""
    opened = Sockets._socket

    def hasty(self: Sockets, kind: int, host: str) -> Socket:
        socket = opened(self, kind, host)
        socket.reconnect_ivl = socket.reconnect_ivl_max = 1
        return socket

    monkeypatch.setattr(Sockets, "_socket", hasty)


def test_an_inbox_closes_though_nobody_has_read_what_became_of_its_connections(network: NetworkSettings) -> None:
    inbox = edge_inbox(network)
    with closing(Refusal(network.frames_port)) as refusal:
        wait_until(lambda: refusal.stalled)
    closer = threading.Thread(target=inbox.close, daemon=True)
    closer.start()
    closer.join(CLOSED_WITHIN_S)
    assert not closer.is_alive()


def test_a_receiver_whose_queue_is_full_goes_on_looking_for_its_publisher(network: NetworkSettings) -> None:
    def wait_for_room(timeout_s: float) -> bool:
        time.sleep(timeout_s)
        return False

    queue = SimpleNamespace(failure=None, pop_acknowledgeable=list, wait_for_room=wait_for_room)
    ingest = cast(SampleIngest, SimpleNamespace(queue=queue))
    with (
        closing(Refusal(network.samples_port)) as refusal,
        SampleReceiver(network, ingest, rank=0, world_size=1, warn=lambda _text: None),
    ):
        wait_until(lambda: refusal.connections > 1.2 * EVENTS_UNREAD / 2)
