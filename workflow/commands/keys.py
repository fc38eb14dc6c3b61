"""`ptychoflow keys`: key pairs for runs that span several hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.keys import make_keys


def keys(directory: Annotated[Path, typer.Argument(help="New folder for the keys.", metavar="DIR")]) -> None:
    """Make keys for a run over several hosts.

    Copy the folder to every host of the run and name it in network.keys_dir.
    """
    make_keys(directory)
    typer.echo(f"keys written to {directory}; who holds this folder can join the run")
