"""The token that whoever commands the run must know."""

from __future__ import annotations

import secrets

TOKEN_BYTES = 18


def make_token() -> str:
    """Return a new token, 144 random bits as text that can be typed."""
    return secrets.token_urlsafe(TOKEN_BYTES)
