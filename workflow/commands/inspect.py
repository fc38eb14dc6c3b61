"""`ptychoflow inspect`: what a scan file holds, before it is run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.workflow.commands.options import ConfigOption, SetOption


def inspect(
    file: Annotated[Path, typer.Argument(help="Recorded scan (HDF5).", metavar="FILE")],
    *,
    plot: Annotated[Path | None, typer.Option(help="Also draw it.", metavar="PNG")] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Say what a scan file holds.

    Frames, geometry, positions, probe and ground truth as a run with the same [source] options would see them.
    """
    from rich.console import Console

    from ptychoflow.acquisition.inspect import inspect_scan
    from ptychoflow.acquisition.scan_plot import plot_scan
    from ptychoflow.acquisition.sources import open_scan
    from ptychoflow.workflow.config import load_scan_config, option_table

    options = option_table(source__kind="replay", source__path=str(file))
    settings = load_scan_config(None, config, assignments or (), options=options)
    with closing(open_scan(settings.source)) as scan:
        Console().print(inspect_scan(scan))
        if plot is not None:
            plot_scan(scan, plot)
            typer.echo(f"plot: {plot}")
