"""How the ranks of a group find and connect to each other, through the group's key-value store."""

from __future__ import annotations

import json
import secrets
import socket
import struct
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
    with _listen(host, world_size, timeout_s) as server:
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
        sockets |= _accept(server, token, expected=set(range(rank + 1, world_size)))
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
def _listen(host: str, world_size: int, timeout_s: float) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, backlog=world_size) as server:
        server.settimeout(timeout_s)
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


def _accept(server: socket.socket, token: bytes, *, expected: set[int]) -> dict[int, socket.socket]:
    """Connections from the `expected` ranks; strangers, who do not know the token, are turned away."""
    sockets: dict[int, socket.socket] = {}
    while set(sockets) != expected:
        try:
            sock, _ = server.accept()
        except TimeoutError as error:
            raise TimeoutError(f"Ranks {sorted(expected - set(sockets))} did not connect in time.") from error
        sock.settimeout(server.gettimeout())
        greeting = sock.recv(_GREETING.size, socket.MSG_WAITALL)
        if len(greeting) == _GREETING.size:
            shown, rank = _GREETING.unpack(greeting)
            if secrets.compare_digest(shown, token) and rank in expected - set(sockets):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets[rank] = sock
                continue
        sock.close()
    return sockets
