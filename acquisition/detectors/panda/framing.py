"""Cuts what comes from a PandA's data port into headers, blocks of samples and ends."""

from __future__ import annotations

from collections.abc import Iterator

GREETING = b"XML FRAMED SCALED\n"
ACCEPTED = b"OK"
HEADER_BEGIN = b"<header"
HEADER_END = b"</header>\n"
BLOCK = b"BIN "
BLOCK_PREFIX_BYTES = 8
"""`BIN ` and the length of the block, which counts both."""
END = b"END "
MAX_HEADER_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 10


class Unframed(ValueError):
    """What came is no data of a PandA, or more than is allowed: the connection must be made anew."""


class Framing:
    """Makes messages of the bytes of one connection, however they are cut on the way.

    Args:
        max_message_bytes: a block that declares more is refused before it is waited for.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._accepted = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield every message that `data` completes: a header from `<header>` on, a block from `BIN ` on, or an end.

        Raises:
            Unframed: the rest of this connection cannot be understood.
        """
        self._buffer += data
        while (message := self._next()) is not None:
            if self._accepted:
                yield message
            elif message != ACCEPTED:
                raise Unframed(f"the box answered {_shown(message)} where {ACCEPTED.decode()} was expected")
            else:
                self._accepted = True

    def _next(self) -> bytes | None:
        while self._buffer.startswith((b"\r", b"\n")):
            del self._buffer[0]
        start = bytes(self._buffer[:4])
        if not self._accepted or start == END:
            return self._take_to(b"\n", MAX_LINE_BYTES)
        if len(start) < 4:
            return None
        if start == BLOCK:
            return self._take_block()
        if start == HEADER_BEGIN[:4]:
            return self._take_to(HEADER_END, min(MAX_HEADER_BYTES, self._max_message_bytes))
        raise Unframed(f"{_shown(self._buffer)} begins neither a header nor samples nor an end")

    def _take_block(self) -> bytes | None:
        if len(self._buffer) < BLOCK_PREFIX_BYTES:
            return None
        length = int.from_bytes(self._buffer[4:BLOCK_PREFIX_BYTES], "little")
        if not BLOCK_PREFIX_BYTES <= length <= self._max_message_bytes:
            raise Unframed(f"a block of {length} bytes is announced; at most {self._max_message_bytes} are taken")
        return self._take(length) if len(self._buffer) >= length else None

    def _take_to(self, mark: bytes, most: int) -> bytes | None:
        place = self._buffer.find(mark, 0, most)
        if place < 0:
            if len(self._buffer) >= most:
                raise Unframed(f"{_shown(self._buffer)} does not end within {most} bytes")
            return None
        return self._take(place + len(mark)).rstrip(b"\r\n")

    def _take(self, length: int) -> bytes:
        message = bytes(memoryview(self._buffer)[:length])
        del self._buffer[:length]
        return message


def _shown(data: bytes | bytearray) -> str:
    return repr(bytes(data[:40]))
