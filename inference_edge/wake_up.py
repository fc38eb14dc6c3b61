"""Ends an edge's waiting for messages when another thread has something for it."""

from __future__ import annotations

import select
import socket
import threading


class WakeUp:
    """A signal that `Inbox.receive` can wait for beside messages."""

    def __init__(self) -> None:
        self.socket, self._signal = socket.socketpair()
        """Readable from `set` until `clear`."""
        for end in (self.socket, self._signal):
            end.setblocking(False)
        self._lock, self._is_set = threading.Lock(), False

    def set(self) -> None:
        """Wake whoever waits, or would; from any thread."""
        with self._lock:
            if not self._is_set:
                self._signal.send(b"\0")
                self._is_set = True

    def wait(self, timeout_s: float) -> None:
        """Wait for the signal."""
        select.select([self.socket], [], [], timeout_s)

    def clear(self) -> None:
        """Forget the signals so far."""
        with self._lock:
            if self._is_set:
                self.socket.recv(1)
                self._is_set = False

    def close(self) -> None:
        """Close both ends."""
        self._signal.close()
        self.socket.close()
