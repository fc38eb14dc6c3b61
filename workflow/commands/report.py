"""`ptychoflow report`: the report of a run that has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.errors import UserError


def report(run: Annotated[Path, typer.Argument(help="Folder of a run, runs/<name>.", metavar="RUN")]) -> None:
    """Write the report of a run again."""
    from ptychoflow.streaming.run_folder import RunFolder
    from ptychoflow.workflow.report import write_report

    folder = RunFolder(run)
    if not folder.summary.is_file():
        raise UserError(f"{run} is not the folder of a run that has ended: it holds no {folder.summary.name}")
    typer.echo(str(write_report(folder)))
