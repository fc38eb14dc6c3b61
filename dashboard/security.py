"""Who may ask, and what a browser may do with the answer."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ptychoflow.streaming.settings import is_loopback

# Plotly draws heat maps as data: images. The hash is that of the empty text: it adds an empty <style> and fills it
# by script, and nothing else is inline.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
SECURITY_HEADERS = {
    "Content-Security-Policy": f"default-src 'self'; style-src 'self' {EMPTY_STYLE}; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecureRequests:
    """Middleware: refuses unknown host names and foreign origins, and adds security headers to every answer.

    A host name that is not expected is refused because a foreign site can point a name of its own at this address.

    Args:
        app: the application.
        host: address that the dashboard listens on; if it is not loopback, any host name is accepted.
        allowed_hosts: further host names; pages under them may ask too, for a proxy may put a host name of its own in
            place of the one that a browser asked for.
    """

    def __init__(self, app: ASGIApp, *, host: str, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._any_host = not is_loopback(host)
        self._allowed_hosts = {name.lower() for name in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        status, refusal = self._refusal(Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            await PlainTextResponse(refusal + "\n", status_code=status)(scope, receive, _with_headers(send))

    def _refusal(self, headers: Headers) -> tuple[int, str | None]:
        """Return the status of an answer that refuses a request, and why; None to let it pass."""
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            site = urlsplit("" if origin is None else origin)
            site_name = site.hostname
        except ValueError:
            return 400, "the header Host or Origin is malformed"
        if not (self._any_host or is_loopback(name) or name in self._allowed_hosts):
            return 403, f"host name {name!r} is not served here; add it to dashboard.allowed_hosts"
        if origin is not None and site.netloc != host and site_name not in self._allowed_hosts:
            return (
                403,
                "requests from other sites are refused; a proxy's host name belongs into dashboard.allowed_hosts",
            )
        return 200, None


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
