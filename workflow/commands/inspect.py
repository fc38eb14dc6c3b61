"""`ptychoflow inspect`: what a scan file holds, before it is run."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.commands.options import ConfigOption, MapOption, PlotOption, SetOption

if TYPE_CHECKING:
    from ptychoflow.acquisition.orientation import Orientation
    from ptychoflow.acquisition.preprocess import FilePerspective
    from ptychoflow.acquisition.scan import Scan
    from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings


def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(help="Recorded scan: a file or a folder; several are perspectives of one scan.", metavar="FILE"),
    ],
    *,
    dataset_map: MapOption = None,
    plot: PlotOption = None,
    orientation: Annotated[
        bool,
        typer.Option(
            "--orientation", help="Also say how rows and columns of the frames lie to the positions; may take a minute."
        ),
    ] = False,
    config: ConfigOption = None,
    assignments: SetOption = None,
) -> None:
    """Say what a scan file holds.

    Frames, geometry, positions, probe and ground truth as a run with the same [source] options would see them.
    Of an HDF5 file of unknown layout: every dataset that could be one of these, and a draft of a dataset map.
    """
    from ptychoflow.acquisition.detectors.settings import LiveSettings
    from ptychoflow.workflow.configuration.config import load_scan_config
    from ptychoflow.workflow.configuration.pipeline_name import PipelineName
    from ptychoflow.workflow.configuration.source_choice import source_options
    from ptychoflow.workflow.contained import contained

    options = source_options(files, dataset_map, PipelineName.PTYCHOGRAPHY)
    settings = load_scan_config(None, config, assignments or (), options=options)
    if isinstance(settings.source, LiveSettings):
        raise UserError("a detector cannot be inspected: name a file that was recorded")
    contained(partial(describe, settings.source, plot=plot, orientation=orientation), files)


def describe(source: ReplaySettings | SimulationSettings, *, plot: Path | None = None, orientation: bool) -> None:
    """Print what a scan holds, in this process. Raises `UserError` if it is none."""
    from rich.console import Console

    from ptychoflow.acquisition.inspect import inspect_scan
    from ptychoflow.acquisition.readers.choosing import UnknownLayout
    from ptychoflow.acquisition.readers.outside import links_allowed_to
    from ptychoflow.acquisition.source_settings import ReplaySettings
    from ptychoflow.acquisition.sources import open_scan
    from ptychoflow.workflow.commands.unknown_layout import describe_unknown

    try:
        scan = open_scan(source)
    except UnknownLayout as unknown:
        with links_allowed_to(source.links_to if isinstance(source, ReplaySettings) else ()):
            describe_unknown(unknown.path)
        raise
    with closing(scan):
        Console().print(inspect_scan(scan))
        if orientation:
            print_orientation(scan)
        if plot is not None:
            from ptychoflow.acquisition.scan_plot import plot_scan  # Matplotlib takes as long as all the rest

            plot_scan(scan, plot)
            typer.echo(f"plot: {plot}")


def print_orientation(scan: Scan) -> None:
    """Print the scores of the eight orientations of the first perspective's frames, and the settings to copy.

    Where the shadows in the frames do not tell, a short phase retrieval is asked.
    """
    from rich.console import Console

    from ptychoflow.acquisition.preprocess import FilePerspective

    first = scan.perspective(0)
    if not isinstance(first, FilePerspective) or (found := first.orientation()) is None:
        typer.echo("orientation: too few frames show anything")
        return
    if found.recommended is None:
        found = _decided(first, found)
    Console().print(found, soft_wrap=True)


def _decided(perspective: FilePerspective, found: Orientation) -> Orientation:
    """Return what a short phase retrieval says, or `found` itself if it cannot be made; show how far it is."""
    from rich.progress import Progress

    from ptychoflow.acquisition.retrieval.orientation_trial import decide_orientation

    try:
        with Progress(transient=True) as progress:
            task = progress.add_task("short phase retrievals")
            return decide_orientation(
                perspective, found, on_progress=lambda done, of: progress.update(task, completed=done, total=of)
            )
    except UserError as error:
        typer.echo(str(error))
        return found
