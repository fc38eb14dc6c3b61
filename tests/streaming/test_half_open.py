"""A consumer's host goes without a word: what the publisher sends into its connection is sent again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import zmq
from streams import MakePublisher, collect, edge_inbox, numbers, post_batches, settle
from support import Proxy, wait_until

from ptychoflow.streaming import inbox as inbox_module
from ptychoflow.streaming import sockets as sockets_module
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import ControlMessage, DataMessage, Frames, Hello
from ptychoflow.streaming.outbox import address
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


def test_an_inbox_asks_again_for_what_others_wait_for(
    network: NetworkSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "STALLED_S", 0.2)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    data, control = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    data.bind(f"tcp://127.0.0.1:{network.frames_port}")
    control.bind(f"tcp://127.0.0.1:{network.acknowledgements_port}")
    codec: Codec[DataMessage] = Codec(DataMessage)
    hellos: list[Hello] = []
    got: list[int] = []

    def send(sequence: int) -> None:
        session = address(hellos[-1].session, hellos[-1].call)
        arrays = {"diffraction": np.full((1, 1, 1), sequence, np.uint16)}
        data.send_multipart(codec.encode(Frames(0, 0.0, 0.0), arrays, session=session, sequence=sequence))

    with edge_inbox(network) as inbox:

        def greeted(times: int) -> bool:
            if (delivery := inbox.receive(0.01)) is not None:
                got.extend(numbers([delivery]))
            while control.poll(0):
                body = Codec(ControlMessage).decode(control.recv_multipart()).body
                if isinstance(body, Hello):
                    hellos.append(body)
            return len(hellos) == times

        wait_until(lambda: greeted(1))
        send(1)  # another took message 0
        wait_until(lambda: greeted(2))
        assert hellos[1].next_sequence == 0
        for sequence in range(2):
            send(sequence)
        wait_until(lambda: greeted(2) and len(got) == 2)
        assert got == [0, 1]
    context.destroy(linger=0)
