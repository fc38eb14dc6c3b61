"""`ptychoflow report`: the report of a run that has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.errors import UserError


def report(run: Annotated[Path, typer.Argument(help="Folder of a run, runs/<name>.", metavar="RUN")]) -> None:
    """Write the report of a run again."""
    from ptychoflow.workflow.report import write_report
    from ptychoflow.workflow.run_folder import RunFolder

    if not RunFolder(run).summary.is_file():
        raise UserError(f"{run} is not the folder of a run that has ended: it holds no summary.json")
    typer.echo(str(write_report(run)))
