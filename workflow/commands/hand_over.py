"""`ptychoflow hand-over`: the perspectives of a run as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.errors import UserError


def hand_over(
    run: Annotated[Path, typer.Argument(help="Folder of a run, runs/<name>.", metavar="RUN")],
    folder: Annotated[Path, typer.Argument(help="Gets a folder with the run's name.", metavar="FOLDER")],
) -> None:
    """Write each perspective of a run that has ended as a ptychodus product with its diffraction file.

    A run does so by itself with the setting outputs.ptychodus.folder.
    """
    from ptychoflow.workflow.hand_over import hand_over as handed_over

    written = 0
    for perspective in handed_over(run, folder):
        typer.echo(f"{folder / run.resolve().name / f'perspective_{perspective:04d}'}")
        written += 1
    if not written:
        raise UserError(f"{run} holds no image of a perspective: there is nothing to hand over")
