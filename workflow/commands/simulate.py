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
    from ptychoflow.acquisition.simulate import simulate_to_file
    from ptychoflow.workflow.configuration.config import load_scan_config
    from ptychoflow.workflow.logs import stderr_console
    from ptychoflow.workflow.progress_bar import ProgressBar

    source = load_scan_config(preset, config, assignments or ()).source
    if not isinstance(source, SimulationSettings):
        raise UserError(
            f"source.kind is '{source.kind}': there is nothing to simulate; choose another --preset or --config"
        )
    perspectives = sum(phase.perspectives for phase in source.phases)
    frames = perspectives * source.frames_per_perspective
    written = 0
    with ProgressBar(stderr_console()) as bar:

        def show(count: int) -> None:
            nonlocal written
            written += count
            bar.show("simulating", written, frames)

        simulate_to_file(source, out, on_frames=show)
    typer.echo(f"{out}: {perspectives} perspective{'s' * (perspectives > 1)}, {frames} frames")
