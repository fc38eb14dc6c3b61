"""`ptychoflow simulate`: a simulated scan as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acquisition.source_settings import SimulationSettings
from streaming.errors import UserError
from workflow.commands.options import ConfigOption, PresetOption, SetOption
from workflow.config import load_config

FRAMES_AT_ONCE = 64


def simulate(
    out: Annotated[Path, typer.Argument(help="File to write.", metavar="OUT.h5")],
    *,
    preset: PresetOption = "simulated",
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Simulate the scan of a rotating specimen and write it as a recording that can be replayed."""
    from acquisition.recorder import Recorder
    from acquisition.sources import open_scan

    source = load_config(preset, config, assignments or ()).source
    if not isinstance(source, SimulationSettings):
        raise UserError("source.kind is not 'simulation': there is nothing to simulate")
    scan = open_scan(source)
    frames = 0
    with Recorder(out, name=scan.name) as recorder:
        for perspective in scan:
            recorder.start_perspective(perspective)
            for start in range(0, len(perspective), FRAMES_AT_ONCE):
                stop = min(start + FRAMES_AT_ONCE, len(perspective))
                recorder.append(perspective.read(start, stop), start=start)
            frames += len(perspective)
    typer.echo(f"{out}: {len(scan)} perspectives, {frames} frames")
