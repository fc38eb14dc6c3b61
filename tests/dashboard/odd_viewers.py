"""Viewers of a page that are none: connections that break the protocol, say too much, or go without a word."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
from collections import deque

from websockets.sync.client import connect

PATIENCE_S = 20.0
LINGERING = 24
"""Connections that are left half open at a time."""
TOO_LONG = 1 << 18
"""Bytes: more than the page takes."""
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
HANDSHAKES = (
    {"Sec-WebSocket-Version": "12"},
    {"Sec-WebSocket-Key": "short"},
    {"Sec-WebSocket-Key": "ü" * 300},
    {"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=99, x" + ";y" * 900},
    {"Sec-WebSocket-Protocol": ",".join("abcdefgh" * 20)},
    {"Origin": "http://evil.example"},
    {"Origin": "http://["},
    {"Host": "evil.example"},
    {"Upgrade": "websocket, h2c"},
    {"Connection": "close"},
)
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(
    opcode: int, payload: bytes, *, last: bool = True, masked: bool = True, reserved: int = 0, length: int | None = None
) -> bytes:
    """Return a frame of the protocol; `length` is what it says of itself where that is not true."""
    said = len(payload) if length is None else length
    first = (0x80 if last else 0) | reserved << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if said < 126:
        head = struct.pack("!BB", first, mask_bit | said)
    elif said < 1 << 16:
        head = struct.pack("!BBH", first, mask_bit | 126, said)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, said)
    return head + (bytes(4) if masked else b"") + payload


class OddViewers:
    """Comes to a page again and again.

    Args:
        host: address of the page.
        port: of the page.
        seed: the same one does the same.
    """

    def __init__(self, host: str, port: int, seed: int) -> None:
        self._where, self._chance = (host, port), random.Random(seed)
        self._lingering: deque[socket.socket] = deque()

    def close(self) -> None:
        """Let go of what is half open."""
        while self._lingering:
            self._lingering.popleft().close()

    def come(self, count: int = 1) -> None:
        """Make so many odd connections; raise OSError if the page takes none."""
        for _ in range(count):
            one = socket.create_connection(self._where, timeout=PATIENCE_S)
            with contextlib.suppress(ConnectionError):  # the page may hang up at any time
                self._misbehave(one)
            self._leave(one)

    def fault(self) -> str | None:
        """Return what is wrong with what a good viewer gets, or None."""
        host, port = self._where
        try:
            with connect(f"ws://{host}:{port}/ws", open_timeout=PATIENCE_S, max_size=None) as viewer:
                update = json.loads(viewer.recv(PATIENCE_S))
        except (OSError, TimeoutError, ValueError) as error:
            return f"a good viewer is not served: {error!r}"
        return None if "present" in update else f"a good viewer gets {str(update)[:200]}"

    def _misbehave(self, one: socket.socket) -> None:
        chance = self._chance
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY}
        headers |= {"Host": f"{self._where[0]}:{self._where[1]}", "Sec-WebSocket-Version": "13"}
        odd = chance.random() < 0.3
        headers |= chance.choice(HANDSHAKES) if odd else {}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"GET /ws HTTP/1.1\r\n{lines}\r\n".encode()
        is_cut = chance.random() < 0.1
        one.sendall(request[: chance.randrange(len(request))] if is_cut else request)
        if not (odd or is_cut) and chance.random() < 0.7:
            one.recv(chance.choice([1, 200, 4096]))
        for _ in range(chance.randint(0, 4)):
            one.sendall(self._odd_frame())

    def _odd_frame(self) -> bytes:
        chance = self._chance
        some = chance.randbytes(1) * chance.choice([0, 1, 125, 126, 5000])
        return chance.choice(
            [
                lambda: frame(BINARY, some),
                lambda: frame(TEXT, b"\xff\xfe" + some),
                lambda: frame(TEXT, b"[" * TOO_LONG),
                lambda: frame(TEXT, b"[", length=chance.choice([2**40, 2**63 - 1, 2**64 - 1, TOO_LONG])),
                lambda: frame(TEXT, some, last=False),
                lambda: frame(TEXT, b"x" * 60_000, last=False) + frame(CONTINUATION, b"x" * 60_000, last=False) * 9,
                lambda: frame(CONTINUATION, some),
                lambda: frame(TEXT, some, masked=False),
                lambda: frame(TEXT, some, reserved=chance.randint(1, 7)),
                lambda: frame(chance.choice([3, 7, 11, 15]), some),
                lambda: frame(PING, some[:125]) * chance.choice([1, 500]),
                lambda: frame(PING, b"x" * 300),
                lambda: frame(PONG, some[:125]),
                lambda: frame(CLOSE, struct.pack("!H", chance.choice([0, 999, 1000, 1005, 5000])) + b"\xff"),
                lambda: frame(CLOSE, b"x"),
                lambda: chance.randbytes(chance.randint(1, 400)),
                lambda: b"GET / HTTP/1.1\r\n\r\n",
            ]
        )()

    def _leave(self, one: socket.socket) -> None:
        manner = self._chance.randrange(4)
        if manner == 0:
            # reset, in place of a farewell
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif manner == 1:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_WR)
        if manner > 1:
            one.close()
            return
        self._lingering.append(one)
        if len(self._lingering) > LINGERING:
            self._lingering.popleft().close()
