"""A consumer's host goes without a word: what the publisher sends into its connection is sent again."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from socket import create_connection

import pytest
from streams import MakePublisher, PlayedPublisher, collect, edge_inbox, numbers, post_batches, settle
from support import Proxy, wait_until

from ptychoflow.streaming import inbox as inbox_module
from ptychoflow.streaming import outbox as outbox_module
from ptychoflow.streaming import sockets as sockets_module
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings


@pytest.fixture(autouse=True)
def _silence_is_noticed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets_module, "HEARTBEAT_INTERVAL_MS", 200)
    monkeypatch.setattr(sockets_module, "HEARTBEAT_TIMEOUT_MS", 1000)


def be_greeted(publisher: Publisher, inbox: Inbox) -> None:
    before = publisher._edge.session if publisher._edge else None

    def step() -> bool:
        publisher.pump(0.0)
        assert inbox.receive(0.01) is None
        return publisher._edge is not None and publisher._edge.session != before

    wait_until(step)


@pytest.mark.parametrize("batches", [1, 101], ids=["the last one", "many"])
def test_what_goes_into_a_dead_connection_is_sent_again_to_the_successor(
    network: NetworkSettings, publisher_of: MakePublisher, batches: int
) -> None:
    publisher = publisher_of(trainer=False)
    proxy = Proxy(network.frames_port)
    gone = edge_inbox(network, proxy.port)
    be_greeted(publisher, gone)
    post_batches(publisher, 10)
    assert numbers(collect(publisher, gone, 10)) == list(range(10))
    settle(publisher)
    proxy.swallows = True
    closing = threading.Thread(target=gone.close)
    closing.start()
    with edge_inbox(network) as successor:
        be_greeted(publisher, successor)
        post_batches(publisher, batches, start=10)
        assert numbers(collect(publisher, successor, batches)) == list(range(10, 10 + batches))
        settle(publisher)
    closing.join()
    proxy.close()


def test_strangers_who_touch_a_port_again_and_again_do_not_have_all_sent_again_each_time(
    network: NetworkSettings, publisher_of: MakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "BREAK_OVER_S", 0.02)
    publisher, batches, touches = publisher_of(trainer=False), 20, 100
    with edge_inbox(network) as inbox:
        post_batches(publisher, batches)
        assert numbers(collect(publisher, inbox, batches, acknowledge=False)) == list(range(batches))
        assert publisher.resent == 0
        for _ in range(touches):
            create_connection(("127.0.0.1", network.frames_port)).close()
            until_s = time.monotonic() + 0.03
            while time.monotonic() < until_s:
                publisher.pump(0.005)
                assert inbox.receive(0.0) is None
        assert batches <= publisher.resent <= touches * batches / 4
        inbox.acknowledge(range(batches))
        settle(publisher)


def test_an_inbox_asks_again_for_what_others_wait_for(
    network: NetworkSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "STALLED_S", 0.2)
    with closing(PlayedPublisher(network)) as publisher, edge_inbox(network) as inbox:
        wait_until(lambda: publisher.is_greeted(inbox, 1))
        publisher.send(1)  # another took message 0
        wait_until(lambda: publisher.is_greeted(inbox, 2))
        assert publisher.hellos[1].next_sequence == 0
        for sequence in range(2):
            publisher.send(sequence)
        wait_until(lambda: publisher.is_greeted(inbox, 2) and len(publisher.got) == 2)
        assert publisher.got == [0, 1]
