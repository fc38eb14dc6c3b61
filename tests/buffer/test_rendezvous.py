"""Ranks find each other though strangers knock at their ports."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support import Stopwatch
from torch.distributed import HashStore

from ptychoflow.buffer.transport.rendezvous import Peers, meet

TIMEOUT_S = 10.0


def store_of_two() -> HashStore:
    """The store of a group whose rank 1 has said on which host it is, which rank 0 waits for."""
    store = HashStore()
    store.set("rehearsal-buffer/1/address/1", "127.0.0.1")
    return store


def meet_as(store: HashStore, rank: int, timeout_s: float = TIMEOUT_S) -> Peers:
    return meet(store, rank=rank, world_size=2, description="same", channel_address=b"", timeout_s=timeout_s)


def card_of(store: HashStore, rank: int) -> dict[str, str]:
    """What a rank of the first buffer has said of itself; waits for it."""
    card: dict[str, str] = json.loads(store.get(f"rehearsal-buffer/1/{rank}"))
    return card


def knock(card: dict[str, str]) -> socket.socket:
    return socket.create_connection((card["host"], int(card["port"])), timeout=TIMEOUT_S)


def say_nothing(one: socket.socket) -> None:
    """The connection stays as it is."""


def say_half(one: socket.socket) -> None:
    one.sendall(b"half a greeting")


def say_a_wrong_greeting(one: socket.socket) -> None:
    one.sendall(bytes(16) + struct.pack("<I", 1))


def reset(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


@pytest.fixture
def first() -> Iterator[tuple[HashStore, Future[Peers]]]:
    """Rank 0, which waits for rank 1, and the group's store."""
    store = store_of_two()
    with ThreadPoolExecutor(1) as threads:
        yield store, threads.submit(meet_as, store, 0)


@pytest.mark.parametrize("stranger", [say_nothing, say_half, say_a_wrong_greeting, reset, socket.socket.close])
def test_a_stranger_delays_no_rank(
    first: tuple[HashStore, Future[Peers]], stranger: Callable[[socket.socket], None]
) -> None:
    store, meeting = first
    card = card_of(store, 0)
    with knock(card) as one:
        stranger(one)
        with Stopwatch() as stopwatch:
            (here,) = meet_as(store, 1).sockets.values()
            (there,) = meeting.result(TIMEOUT_S).sockets.values()
        assert stopwatch.passed_s < TIMEOUT_S / 3
        with here, there:
            assert there.getblocking()
            here.sendall(b"from rank 1")
            assert there.recv(64) == b"from rank 1"
            if stranger in (say_nothing, say_half):
                assert one.recv(64) == b"", "it was turned away when all had come"


def test_a_greeting_may_come_in_pieces(first: tuple[HashStore, Future[Peers]]) -> None:
    store, meeting = first
    card = card_of(store, 0)
    greeting = bytes.fromhex(card["token"]) + struct.pack("<I", 1)
    with knock(card) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        store.set("rehearsal-buffer/1/1", json.dumps(card))
        one.sendall(greeting[:7])
        one.sendall(greeting[7:] + b"first message")
        with meeting.result(TIMEOUT_S).sockets[1] as there:
            assert there.recv(64) == b"first message"


def test_strangers_do_not_put_off_the_end_of_waiting() -> None:
    """Rank 1 says where it is and never connects; there is one deadline, whoever else comes."""
    store, ended = store_of_two(), threading.Event()

    def keep_knocking() -> None:
        card = card_of(store, 0)
        store.set("rehearsal-buffer/1/1", json.dumps(card))
        for _ in range(80):
            if ended.wait(0.1):
                return
            with contextlib.suppress(OSError):
                knock(card).close()

    with ThreadPoolExecutor(1) as threads, Stopwatch() as stopwatch:
        threads.submit(keep_knocking)
        try:
            with pytest.raises(TimeoutError, match=r"Ranks \[1\] did not connect in time"):
                meet_as(store, 0, timeout_s=1.0)
        finally:
            ended.set()
        assert stopwatch.passed_s < 4.0
