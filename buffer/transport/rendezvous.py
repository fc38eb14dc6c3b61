"""How the ranks of a group find and connect to each other, through the group's key-value store."""

from __future__ import annotations

import json
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch.distributed.distributed_c10d import Store

from ptychoflow.buffer.transport.own_address import INTERFACE_VARIABLE, find_own_address, wait_for

_MISSING = "made no rehearsal buffer"
_TOKEN_BYTES = 16
_GREETING = struct.Struct(f"<{_TOKEN_BYTES}sI")


@dataclass(frozen=True)
class Peers:
    """Connected blocking sockets and the channels' addresses of all other ranks."""

    sockets: dict[int, socket.socket]
    channel_addresses: dict[int, bytes]


def meet(
    store: Store, *, rank: int, world_size: int, description: str, channel_address: bytes, timeout_s: float
) -> Peers:
    """Connect to every other rank; collective.

    `description`: what must be equal on all ranks. Raises TimeoutError naming the ranks that did not appear within
    `timeout_s`, and ValueError if a rank describes its buffer otherwise.
    """
    number = store.add(f"rehearsal-buffer/made-by/{rank}", 1)
    group = f"rehearsal-buffer/{number}"  # tells the buffers of one group apart: ranks make them in the same order
    host = find_own_address(
        store, f"{group}/address", rank=rank, world_size=world_size, timeout_s=timeout_s, missing=_MISSING
    )
    token = secrets.token_bytes(_TOKEN_BYTES)
    with _listen(host, world_size) as server:
        own = {
            "host": host,
            "port": server.getsockname()[1],
            "token": token.hex(),
            "description": description,
            "channel": channel_address.hex(),
        }
        cards = _exchange(store, group, json.dumps(own), rank=rank, world_size=world_size, timeout_s=timeout_s)
        for other, card in enumerate(cards):
            if card["description"] != description:
                raise ValueError(
                    f"Rank {other} made its buffer otherwise than rank {rank}: "
                    f"{card['description']} against {description}."
                )
        sockets = {lower: _connect(cards[lower], rank, lower, timeout_s) for lower in range(rank)}
        sockets |= _accept(server, token, expected=set(range(rank + 1, world_size)), timeout_s=timeout_s)
    others = [other for other in range(world_size) if other != rank]
    return Peers(sockets, {other: bytes.fromhex(cards[other]["channel"]) for other in others})


def _exchange(
    store: Store, group: str, own: str, *, rank: int, world_size: int, timeout_s: float
) -> list[dict[str, str]]:
    """Everybody's card."""
    keys = [f"{group}/{other}" for other in range(world_size)]
    store.set(keys[rank], own)
    wait_for(store, keys, timeout_s, _MISSING)
    return [json.loads(store.get(key)) for key in keys]


@contextmanager
def _listen(host: str, world_size: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=world_size) as server:
        server.setblocking(False)
        yield server


def _connect(card: dict[str, str], rank: int, other: int, timeout_s: float) -> socket.socket:
    try:
        sock = socket.create_connection((card["host"], int(card["port"])), timeout=timeout_s)
    except OSError as error:
        raise TimeoutError(
            f"Rank {other} cannot be reached at {card['host']}:{card['port']}: {error}; "
            f"{INTERFACE_VARIABLE} on its host names the interface that others reach."
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(_GREETING.pack(bytes.fromhex(card["token"]), rank))
    return sock


class _Caller:
    """Who has connected and is still to say who it is."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._said = b""

    def greeting(self) -> bytes | None:
        """What it has said, once that is as long as a greeting or it says no more; None until then."""
        try:
            said = self.sock.recv(_GREETING.size - len(self._said))
        except BlockingIOError:
            return None
        except OSError:
            return b""
        self._said += said
        return self._said if not said or len(self._said) == _GREETING.size else None


def _accept(server: socket.socket, token: bytes, *, expected: set[int], timeout_s: float) -> dict[int, socket.socket]:
    """Connections from the `expected` ranks; strangers, who do not know the token, are turned away.

    Nobody waits for one that connects and says nothing.
    """
    deadline = time.monotonic() + timeout_s
    sockets: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector, _turning_away(selector):
        selector.register(server, selectors.EVENT_READ)
        while missing := expected - set(sockets):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"Ranks {sorted(missing)} did not connect in time.")
            for key, _ in selector.select(remaining):
                if key.data is None:
                    _let_in(server, selector)
                elif (greeting := key.data.greeting()) is not None:
                    selector.unregister(key.data.sock)
                    rank = _rank_of(greeting, token)
                    if rank in expected - set(sockets):
                        sockets[rank] = key.data.sock
                    else:
                        key.data.sock.close()
    for sock in sockets.values():
        sock.setblocking(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sockets


def _let_in(server: socket.socket, selector: selectors.BaseSelector) -> None:
    try:
        sock, _ = server.accept()
    except (BlockingIOError, ConnectionError):  # it has gone already
        return
    selector.register(sock, selectors.EVENT_READ, _Caller(sock))


def _rank_of(greeting: bytes, token: bytes) -> int | None:
    """Which rank greets; None for a stranger."""
    if len(greeting) != _GREETING.size:
        return None
    shown, rank = _GREETING.unpack(greeting)
    return int(rank) if secrets.compare_digest(shown, token) else None


@contextmanager
def _turning_away(selector: selectors.BaseSelector) -> Iterator[None]:
    """Close whoever has still not said who it is."""
    try:
        yield
    finally:
        for key in list(selector.get_map().values()):
            if key.data is not None:
                key.data.sock.close()
