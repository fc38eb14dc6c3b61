"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.writable import require_writable
from ptychoflow.workflow.configuration.pipeline_name import PipelineName


def _writable(option: typer.CallbackParam, file: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before hours are measured for it."""
    from ptychoflow.workflow.json_results import is_ordinary

    if file is None:
        return None
    if not file.parent.is_dir():
        raise UserError(f"{option.opts[0]} {file}: there is no folder {file.parent}; make it, or name another file")
    if file.is_dir():
        raise UserError(f"{option.opts[0]} {file}: this is a folder; name a file in it")
    if is_ordinary(file):
        require_writable(file.parent)
    elif not os.access(file, os.W_OK):
        raise UserError(f"{option.opts[0]} {file}: this cannot be written; name another file")
    return file


PresetOption = Annotated[
    str | None, typer.Option("--preset", help="Start from a preset: demo, simulated ...", metavar="NAME")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; its keys replace the preset's.", metavar="FILE")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace one key; may be repeated.", metavar="SECTION.KEY=VALUE"),
]
PipelineOption = Annotated[
    PipelineName | None, typer.Option("--pipeline", help="What is learnt; without, the kind of source decides.")
]
MapOption = Annotated[
    str | None,
    typer.Option(
        "--map", help="Dataset map: hxn, nanomax, velociprobe, polar, lamni ..., or a TOML file.", metavar="NAME|FILE"
    ),
]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the results as JSON to this file.", metavar="FILE", callback=_writable),
]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Also draw it.", metavar="PNG", callback=_writable)]
