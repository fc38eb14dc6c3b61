"""The token with which people command a run from its page: made per run, shown once, kept in no file."""

from __future__ import annotations

import os

from ptychoflow.workflow.logs import stderr_console

TOKEN_VARIABLE = "PTYCHOFLOW_TOKEN"
"""Hands the token to the dashboard's process: the environment of a process can be read by its owner alone."""


def show_token(token: str, url: str) -> None:
    """Show where the page is and the token, on standard error and in no log."""
    stderr_console().print(f"live page: {url}", markup=False, highlight=False)
    stderr_console().print(f"token for the controls of the page: {token}", markup=False, highlight=False)


def take_token() -> str | None:
    """Return the token that the launcher, or whoever started the dashboard, handed over; None without one."""
    return os.environ.pop(TOKEN_VARIABLE, "") or None
