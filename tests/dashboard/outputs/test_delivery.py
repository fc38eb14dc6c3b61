"""Consumers that are slow, dead or come back, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from output_news import image, news
from support import free_ports, wait_until

from ptychoflow.dashboard.mosaics import Mosaic
from ptychoflow.dashboard.outputs import delivery as module
from ptychoflow.dashboard.outputs.delivery import Delivery
from ptychoflow.dashboard.outputs.mailbox import Mailbox
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import ConsumerAway, Output
from ptychoflow.streaming.errors import UserError


class SocketOutput(Output):
    """Sends the number of each perspective with many bytes behind it, and waits for room for as long as it takes."""

    name = "socket"
    takes = (Mosaic,)

    def __init__(self, port: int, padding: int = 0) -> None:
        self._port, self._padding = port, padding
        self._socket: socket.socket | None = None
        self.attempts = 0
        self.refused = False
        """Whether nobody was there the last time."""
        self.closed = threading.Event()

    def send(self, news: News) -> None:
        self.attempts += 1
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port))
            self._socket.sendall(b"%d " % news.what.info.perspective + b"x" * self._padding)
            self.refused = False
        except OSError as error:
            self._disconnect()
            self.refused = True
            raise ConsumerAway(f"nobody listens on port {self._port}") from error

    def close(self) -> None:
        self._disconnect()
        self.closed.set()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.02)
    yield


def test_a_consumer_that_never_reads_slows_nothing_and_what_it_misses_is_counted(warnings: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        output = SocketOutput(deaf.getsockname()[1], padding=64 << 20)
        delivery = Delivery(output, warn=warnings.append, mailbox=Mailbox(max_news=8))
        delivery.put(news(image(0)))
        wait_until(lambda: output.attempts == 1)
        for perspective in range(1, 1000):
            delivery.put(news(image(perspective)))
        assert (delivery.sent, delivery.dropped, delivery.overtaken, delivery.undelivered) == (0, 991, 0, 9)
        delivery.stop()
        assert not delivery.join(0.1)
        said = delivery.describe()
        assert said == "socket: 0 delivered, 0 overtaken by newer ones, 991 dropped, as too many waited, 9 undelivered"
        deaf.accept()[0].close()  # ends the thread of this test
    assert delivery.join(30)


@pytest.mark.usefixtures("quickly")
@pytest.mark.timeout(60)
def test_a_dead_consumer_is_tried_again_said_once_and_gets_the_newest_when_it_comes_back(warnings: list[str]) -> None:
    (port,) = free_ports(1)
    output = SocketOutput(port)
    delivery = Delivery(output, warn=warnings.append)
    delivery.put(news(image(1)))
    delivery.put(news(image(2)))
    wait_until(lambda: output.attempts > 5)
    delivery.put(news(image(1)))
    for _ in range(2):  # it comes, goes, and comes back
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(20)
            connection = listener.accept()[0]
            with closing(connection):
                wait_until(lambda: delivery.undelivered == 0)
                delivery.put(news(image(7)))
                received = b""
                while b"7 " not in received:
                    received += connection.recv(100)

        def noticed() -> bool:
            """A connection notices with its second message that nobody is there."""
            delivery.put(news(image(8)))
            return output.refused

        wait_until(noticed)
    assert warnings == [
        f"output socket: nobody listens on port {port}; tried again until it works, with the newest images and scores"
    ]
    delivery.stop()
    assert delivery.join(30)
    assert output.closed.is_set()
    assert delivery.undelivered == 1
    assert delivery.describe().endswith("1 undelivered")


def test_pauses_grow_to_a_bound() -> None:
    delivery = Delivery(SocketOutput(0), warn=print)
    assert [delivery._grown_pause_s() for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    delivery.stop()
    assert delivery.join(30)


def test_an_output_with_a_fault_in_it_ends_alone_and_says_why(warnings: list[str]) -> None:
    class Faulty(SocketOutput):
        def send(self, news: News) -> None:
            raise UserError("a fault")

    output = Faulty(0)
    delivery = Delivery(output, warn=warnings.append)
    thread_hook, threading.excepthook = threading.excepthook, lambda _: None
    try:
        delivery.put(news(image()))
        assert delivery.join(30)
    finally:
        threading.excepthook = thread_hook
    assert isinstance(delivery.failure, UserError)
    assert output.closed.is_set()
    delivery.put(news(image(1)))
    assert delivery.undelivered == 2
