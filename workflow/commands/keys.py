"""`ptychoflow keys`: key pairs for runs that span several hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.access import Role
from ptychoflow.streaming.keys import PUBLIC, make_keys

COMMANDS = {
    Role.ACQUISITION: "acquire",
    Role.TRAINER: "train",
    Role.EDGE: "edge",
    Role.HUB: "dashboard",
    Role.DASHBOARD: "dashboard --no-hub",
    Role.OUTPUTS: "outputs",
}


def keys(directory: Annotated[Path, typer.Argument(help="New folder for the keys.", metavar="DIR")]) -> None:
    """Make keys for a run over several hosts: a pair for each role.

    Give each host public/ and the secrets of its own roles, in the folder that network.keys_dir names.
    """
    make_keys(directory)
    typer.echo(f"keys written to {directory}; each host gets {directory / PUBLIC} and the secrets of its own roles:")
    for role in Role:
        starts = f"ptychoflow {COMMANDS[role]}" if role in COMMANDS else "PositionSender"
        typer.echo(f"  {role}.key_secret: {starts}")
