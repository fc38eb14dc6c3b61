"""The token with which people command a run from its page: made per run, shown once, kept in no file."""

from __future__ import annotations

import os

from dashboard.control import make_token
from workflow.logs import stderr_console

TOKEN_VARIABLE = "PTYCHOFLOW_TOKEN"
"""Hands the token to the dashboard's process: the environment of a process can be read by its owner alone."""


def show_token(token: str) -> None:
    """Show the token on standard error, and in no log."""
    stderr_console().print(f"token for the controls of the page: {token}", markup=False, highlight=False)


def take_token() -> str:
    """Return the token that the launcher handed over, or else make one and show it."""
    handed_over = os.environ.pop(TOKEN_VARIABLE, "")
    if handed_over:
        return handed_over
    token = make_token()
    show_token(token)
    return token
