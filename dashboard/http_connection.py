"""HTTP connections of which those that ask for nothing shut nobody out."""

from __future__ import annotations

import asyncio
import time

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpConnection(H11Protocol):
    """A connection that makes room for a new one as long as no whole request has come over it."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; at the limit of connections, the one that has waited for its request longest is closed."""
        super().connection_made(transport)
        self._heard_at_s = time.monotonic()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            others = [one for one in self.connections if isinstance(one, HttpConnection) and one is not self]
            waiting = [one for one in others if one.conn.their_state in (h11.IDLE, h11.SEND_BODY)]
            if waiting:
                oldest = min(waiting, key=lambda one: one._heard_at_s)
                self.connections.discard(oldest)
                oldest.transport.abort()

    def on_response_complete(self) -> None:
        """Note when the last request was answered."""
        self._heard_at_s = time.monotonic()
        super().on_response_complete()
