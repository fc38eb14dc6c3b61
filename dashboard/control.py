"""What lets a request pass only with the token that whoever commands the run must know."""

from __future__ import annotations

import hmac
import logging

from fastapi import HTTPException, Request

from ptychoflow.streaming.seldom import Seldom

log = logging.getLogger(__name__)
log.addFilter(Seldom())

SCHEME = "bearer"


class RequireToken:
    """A dependency of routes: lets a request pass only with the header `Authorization: Bearer TOKEN`.

    A header, because a browser sends no header of its own accord to another site's request, and because cookies are
    shared by all ports of a host; never a query parameter, because addresses end up in logs and histories.

    Args:
        token: what to ask for.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __call__(self, request: Request) -> None:
        """Raise a 401 answer unless the request carries the token."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == SCHEME and hmac.compare_digest(given.strip().encode(), self._token):
            return
        client = request.client.host if request.client else "unknown"
        log.warning("refused %s from %s: no token, or a wrong one", request.url.path, client)
        raise HTTPException(
            401, "commands need the token that the run showed at its start", {"WWW-Authenticate": "Bearer"}
        )
