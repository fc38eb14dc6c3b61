"""`ptychoflow simulate`: a simulated scan as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.commands.options import ConfigOption, PresetOption, SetOption


def simulate(
    out: Annotated[Path, typer.Argument(help="File to write.", metavar="OUT.h5")],
    *,
    preset: PresetOption = "simulated",
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Write a simulated scan to a file.

    The file is a recording with its ground truth, which `ptychoflow run OUT.h5` replays.
    """
    from rich.progress import Progress

    from ptychoflow.acquisition.simulate import simulate_to_file
    from ptychoflow.workflow.configuration.config import load_scan_config
    from ptychoflow.workflow.logs import stderr_console

    source = load_scan_config(preset, config, assignments or ()).source
    if not isinstance(source, SimulationSettings):
        raise UserError("source.kind is 'replay': there is nothing to simulate; choose another --preset or --config")
    perspectives = sum(phase.perspectives for phase in source.phases)
    frames = perspectives * source.frames_per_perspective
    with Progress(console=stderr_console(), disable=not stderr_console().is_terminal) as progress:
        task = progress.add_task("simulating", total=frames)
        simulate_to_file(source, out, on_frames=lambda count: progress.advance(task, count))
    typer.echo(f"{out}: {perspectives} perspectives, {frames} frames")
