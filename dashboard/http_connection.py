"""HTTP connections of which those that ask for nothing, or were turned away, shut nobody out."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpConnection(H11Protocol):
    """A connection that makes room for a new one as long as no whole request has come over it."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; at the limit of connections, another one is closed that nobody is served over."""
        super().connection_made(transport)
        self._heard_at_s = time.monotonic()
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

    def on_response_complete(self) -> None:
        """Note when the last request was answered."""
        self._heard_at_s = time.monotonic()
        super().on_response_complete()
