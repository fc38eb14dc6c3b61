"""Ends an edge's waiting for messages when another thread has something for it."""

from __future__ import annotations

import select
import socket


class WakeUp:
    """A signal that `Inbox.receive` can wait for beside messages."""

    def __init__(self) -> None:
        self.socket, self._signal = socket.socketpair()
        """Readable from `set` until `clear`."""
        for end in (self.socket, self._signal):
            end.setblocking(False)

    def set(self) -> None:
        """Wake whoever waits, or would; from any thread."""
        try:
            self._signal.send(b"\0")
        except BlockingIOError:
            return  # it is full of earlier signals, so that `socket` is readable

    def wait(self, timeout_s: float) -> None:
        """Wait for the signal."""
        select.select([self.socket], [], [], timeout_s)

    def clear(self) -> None:
        """Forget the signals so far."""
        try:
            self.socket.recv(1 << 10)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both ends."""
        self._signal.close()
        self.socket.close()
