"""The address of the page, as browsers are given it."""

from __future__ import annotations


def page_url(host: str, port: int) -> str:
    """Return the address of the page."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"
