"""What `ptychoflow inspect` prints of an HDF5 file that no reader recognises."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import typer
from rich.console import Console

from ptychoflow.acquisition.readers.draft import draft_map, survey_table
from ptychoflow.acquisition.readers.hdf5 import damage_told, open_hdf5
from ptychoflow.acquisition.readers.survey import survey
from ptychoflow.streaming.printable import printable


def describe_unknown(path: Path) -> None:
    """Print what could be what in the file, and a draft of a dataset map as plain text that can be copied."""
    with damage_told(path), closing(open_hdf5(path)) as file:
        found = survey(file)
    console = Console()
    console.print(survey_table(found))
    for missing in found.missing:
        console.print(f"Missing: {printable(missing)}", style="yellow", markup=False, soft_wrap=True)
    typer.echo()
    typer.echo(draft_map(found, name=path.name))
