"""The token with which people command a run from its page: made per run, shown once, kept in no file."""

from __future__ import annotations

import os

from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.token import make_token
from ptychoflow.workflow.logs import stderr_console

TOKEN_VARIABLE = "PTYCHOFLOW_TOKEN"
"""Hands the token to the dashboard's process: the environment of a process can be read by its owner alone."""


def show_token(token: str, dashboard: DashboardSettings) -> None:
    """Show where the page is and the token, on standard error and in no log."""
    name = f"[{dashboard.host}]" if ":" in dashboard.host else dashboard.host
    stderr_console().print(f"live page: http://{name}:{dashboard.port}/", markup=False, highlight=False)
    stderr_console().print(f"token for the controls of the page: {token}", markup=False, highlight=False)


def take_token(dashboard: DashboardSettings) -> str:
    """Return the token that the launcher handed over, or else make one and show it."""
    handed_over = os.environ.pop(TOKEN_VARIABLE, "")
    if handed_over:
        return handed_over
    token = make_token()
    show_token(token, dashboard)
    return token
