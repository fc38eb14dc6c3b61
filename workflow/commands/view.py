"""`ptychoflow view`: the page of a run that has ended."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.errors import UserError


def view(
    run: Annotated[Path, typer.Argument(help="Folder of a run, runs/<name>.", metavar="RUN")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page on loopback; 0 takes a free one.")] = 0,
) -> None:
    """Show the page of a run that has ended, and of those beside it, until Ctrl-C."""
    from ptychoflow.dashboard.server import serve_earlier_run
    from ptychoflow.dashboard.settings import DashboardSettings
    from ptychoflow.streaming.run_folder import RunFolder
    from ptychoflow.workflow.launching.part_process import stop_on_signals
    from ptychoflow.workflow.launching.run_folder import is_claimed

    folder = RunFolder(run)
    if is_claimed(folder):
        raise UserError(f"run {run} is still going on: open its live page, whose address it showed when it began")
    stop = threading.Event()
    with stop_on_signals(stop):
        serve_earlier_run(
            DashboardSettings(port=port),
            folder=folder,
            stop=stop,
            on_served=lambda url: typer.echo(f"{url}  (Ctrl-C ends it)"),
        )
