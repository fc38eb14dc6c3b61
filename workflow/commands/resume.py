"""`ptychoflow resume`: an interrupted run, continued."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.workflow.commands.options import SetOption


def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run, runs/<name>.", metavar="RUN")],
    *,
    assignments: SetOption = None,
    ranks: Annotated[int | None, typer.Option(help="Trainer processes; may differ from before.")] = None,
    dashboard: Annotated[
        bool | None, typer.Option("--dashboard/--no-dashboard", help="Serve the live page (default: as before).")
    ] = None,
) -> int:
    """Go on with a run that was interrupted or killed.

    From its newest checkpoint, in the same folder, with the same configuration.
    """
    from ptychoflow.workflow.configuration.config import option_table
    from ptychoflow.workflow.launching.launcher import relaunch
    from ptychoflow.workflow.launching.resuming import resumed_config

    options = option_table(trainer__ranks=ranks, dashboard__enabled=dashboard)
    return relaunch(resumed_config(run, assignments or (), options=options))
