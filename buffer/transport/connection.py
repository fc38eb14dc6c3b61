"""One non-blocking socket to one rank: fills the memory that its reader asks for, sends what is queued."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator

_PARTS_PER_CALL = 64


class Connection:
    """Never blocks: `receive` and `flush` do what the kernel allows now and return.

    `reader` yields the memory to fill next and is resumed when it is full, so that bytes land where they belong without
    a copy in between.
    """

    def __init__(self, sock: socket.socket, reader: Iterator[memoryview]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._reader = reader
        self._wanted = next(reader)
        self._outgoing: deque[tuple[memoryview, Callable[[], None] | None]] = deque()

    def fileno(self) -> int:
        """For the selector."""
        return self._sock.fileno()

    @property
    def idle(self) -> bool:
        """Whether everything queued was handed to the kernel."""
        return not self._outgoing

    def receive(self) -> None:
        """Read what has arrived; ConnectionError if the other side is gone."""
        while True:
            try:
                received = self._sock.recv_into(self._wanted)
            except BlockingIOError:
                return
            if received == 0:
                raise ConnectionResetError("closed the connection")
            self._wanted = self._wanted[received:]
            while not len(self._wanted):
                self._wanted = next(self._reader)

    def send(self, *parts: bytes | memoryview, sent: Callable[[], None] | None = None) -> None:
        """Queue `parts`; they must not change until `sent` was called, which is when the kernel has them all."""
        views = [memoryview(part).cast("B") for part in parts]
        self._outgoing.extend((view, None) for view in views[:-1])
        self._outgoing.append((views[-1], sent))
        self.flush()

    def flush(self) -> None:
        """Hand queued bytes to the kernel as far as it takes them; ConnectionError if the other side is gone."""
        while self._outgoing:
            try:
                count = self._sock.sendmsg([view for view, _ in list(self._outgoing)[:_PARTS_PER_CALL]])
            except BlockingIOError:
                return
            self._drop_sent(count)

    def _drop_sent(self, count: int) -> None:
        while self._outgoing and count >= len(self._outgoing[0][0]):
            view, sent = self._outgoing.popleft()
            count -= len(view)
            if sent is not None:
                sent()
        if count:
            view, sent = self._outgoing[0]
            self._outgoing[0] = (view[count:], sent)

    def finish_sending(self) -> None:
        """Tell the other side that nothing more will come."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Release the socket."""
        self._sock.close()
