"""One rank whose peer is driven by hand: it leaves, or dies, while something is under way."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from ptychoflow.buffer import Candidate, Field, Schema
from ptychoflow.buffer.draws import ScoreDraw
from ptychoflow.buffer.item_update import ItemUpdate
from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.outputs import Outputs
from ptychoflow.buffer.policies import make_policy
from ptychoflow.buffer.transport import mesh
from ptychoflow.buffer.transport.mesh import MeshTransport
from ptychoflow.buffer.transport.rendezvous import Peers
from ptychoflow.buffer.transport.tcp import TcpItemChannel
from ptychoflow.buffer.transport.wire import SCORES_BIT, Kind, Message

SCHEMA = Schema(number=Field((), "int64"))
ITEMS = 8
BYE = Message(Kind.BYE, 0).pack()


class Pair(NamedTuple):
    """Rank 0, with one item numbered 7, and the socket of rank 1."""

    store: LocalStore
    transport: MeshTransport
    peer: socket.socket


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Rank 0 draws by score; its item has id 0 and weighs 1. The parameter is its timeout in seconds."""
    store = LocalStore(
        SCHEMA,
        quotas=np.array([4]),
        spare_rows=4,
        policy=make_policy("random"),
        rank=0,
        pinned=False,
        score_exponent=1.0,
    )
    rng = np.random.default_rng(0)
    (row,) = store.free.reserve(1)
    store.rows.write([row], {"number": torch.tensor([7])}, [0])
    store.insert([row], [Candidate(0, 1.0)], rng)
    own, peer = socket.socketpair()
    timeout_s = getattr(request, "param", 10.0)
    transport = MeshTransport(
        Peers({1: own}, {}), TcpItemChannel(), store, serve_rng=rng, largest_draw=ITEMS, timeout_s=timeout_s
    )
    yield Pair(store, transport, peer)
    peer.close()
    transport.close()


def floats(*values: float) -> bytes:
    return np.array(values, np.float64).tobytes()


def integers(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "dies"])
def test_a_draw_by_score_goes_on_without_a_rank_that_has_left_after_a_round(pair: Pair, leaves: bool) -> None:
    """It says that it has more to give, and cannot be asked for it."""
    store, transport, peer = pair
    outputs = Outputs(SCHEMA, ITEMS, device=torch.device("cpu"), open_window=transport.open_window)
    draw = ScoreDraw(store, transport, outputs, items=ITEMS, rng=np.random.default_rng(0))
    peer.sendall(Message(Kind.SIZE, 100).pack() + floats(1e9))
    transport.serve(10.0)
    draw.begin()
    reply = Message(Kind.ITEMS, 100, request_id=1, items=1).pack() + floats(1e8) + integers(1, 0, 42)
    peer.sendall(reply + (BYE if leaves else b""))
    peer.shutdown(socket.SHUT_WR)
    assert draw.complete()
    assert sorted(outputs.swap()["number"].tolist()) == [7, 42]
    assert transport.left == ([1] if leaves else [])
    assert list(transport.lost) == ([] if leaves else [1])


def test_a_rank_may_die_that_has_asked_for_a_rewrite(pair: Pair) -> None:
    """The first that it is to be told is the new weight, and that already shows that it is gone."""
    store, transport, peer = pair
    update = Message(Kind.WANT_UPDATE, 0, request_id=1, items=1, detail=1 << SCORES_BIT)
    peer.sendall(update.pack() + integers(0) + floats(5.0))
    peer.close()
    transport.serve(10.0)
    assert store.share.weight == 5.0
    assert "connection lost" in transport.lost[1]
    assert transport.sizes == {}


def test_a_process_that_stood_still_gives_nobody_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was sent meanwhile is still to be read when more than its timeout has passed."""
    _, transport, peer = pair
    clock, serve = itertools.count(step=1000), transport.serve
    monkeypatch.setattr(mesh, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    transport.request_update(1, ItemUpdate(np.array([0]), {}, np.array([5.0])))
    answers = iter([b"", Message(Kind.UPDATED, 0, request_id=1, items=1).pack()])

    def stand_still_and_serve(timeout_s: float | None) -> None:
        peer.sendall(next(answers, b""))
        serve(0)

    monkeypatch.setattr(transport, "serve", stand_still_and_serve)
    assert transport.collect().updated == 1
    assert transport.lost == {}


def test_what_was_restored_is_told_and_waited_for(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """A store that only grows says nothing of a checkpoint."""
    _, transport, peer = pair
    peer.sendall(Message(Kind.SIZE, 1).pack() + floats(1.0) + Message(Kind.RESTORED, 5).pack() + floats(2.5))
    transport.announce_restored()
    assert (transport.sizes, transport.weights) == ({1: 5}, {1: 2.5})
    told = Message(Kind.RESTORED, 1).pack() + floats(1.0)
    assert peer.recv(len(told)) == told
    assert not caplog.records


@pytest.mark.parametrize("pair", [0.2], indirect=True)
def test_a_rank_that_restores_nothing_is_not_waited_for_longer_than_the_limit(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    _, transport, peer = pair
    peer.sendall(Message(Kind.SIZE, 5).pack() + floats(2.5))
    transport.announce_restored()
    assert "ranks [1] have restored nothing in 0.2 s: restore the buffer on every rank" in caplog.text
    assert transport.sizes == {1: 5}


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "dies"])
def test_a_rank_that_is_gone_is_not_waited_for(pair: Pair, leaves: bool) -> None:
    _, transport, peer = pair
    peer.sendall(BYE if leaves else b"")
    peer.shutdown(socket.SHUT_WR)
    transport.announce_restored()
    assert transport.sizes == {}
