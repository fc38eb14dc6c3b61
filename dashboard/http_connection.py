"""HTTP connections of which those that ask for nothing, were turned away or read nothing harm nobody."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

UNREAD_BYTES = 1 << 28
"""Of answers that wait in memory for those who asked for them, over all connections; a single one may be larger."""


class HttpConnection(H11Protocol):
    """A connection that makes room for a new one as long as no whole request has come over it.

    Those who ask for images and do not read them are hung up on before they fill the memory.
    """

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; at the limit of connections, another one is closed that nobody is served over."""
        super().connection_made(transport)
        self._heard_at_s = self._unread_since_s = time.monotonic()
        is_full = self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency
        if is_full and (one := self._one_to_close()) is not None:
            self.connections.discard(one)
            one.transport.abort()

    def _one_to_close(self) -> Any:
        """Return the connection that has waited for its request longest, else a viewer that was turned away."""
        others = [one for one in self.connections if one is not self]
        http = [one for one in others if isinstance(one, HttpConnection)]
        waiting = [one for one in http if one.conn.their_state in (h11.IDLE, h11.SEND_BODY)]
        if waiting:
            return min(waiting, key=lambda one: one._heard_at_s)
        # a viewer that never reads does not hear that it was turned away, and would stay for ten seconds
        return next((one for one in others if getattr(one, "close_sent", False)), None)

    def pause_writing(self) -> None:
        """Note that an answer is not read as fast as it was made; if too much waits, hang up on who is slowest."""
        super().pause_writing()
        self._unread_since_s = time.monotonic()
        unread = [one for one in self.connections if isinstance(one, HttpConnection) and one.flow.write_paused]
        unread.sort(key=lambda one: one._unread_since_s)
        waiting_bytes = sum(one.transport.get_write_buffer_size() for one in unread)
        for one in unread[:-1]:
            if waiting_bytes <= UNREAD_BYTES:
                break
            waiting_bytes -= one.transport.get_write_buffer_size()
            self.connections.discard(one)
            one.transport.abort()

    def on_response_complete(self) -> None:
        """Note when the last request was answered."""
        self._heard_at_s = time.monotonic()
        super().on_response_complete()
