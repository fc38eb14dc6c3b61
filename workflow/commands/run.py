"""`ptychoflow run`: the whole workflow on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.commands.options import ConfigOption, MapOption, PipelineOption, PresetOption, SetOption

ScanArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Recorded scan to replay (several files are perspectives of one), or folder of labelled images to stream.",
        metavar="[SCAN]...",
    ),
]


def run(
    scan: ScanArgument = None,
    *,
    detector: Annotated[
        str | None,
        typer.Option(
            help="Detector whose frames are taken as they come: dectris-v2://10.0.0.5, hdf5-swmr:///data/scans ...",
            metavar="KIND[://HOST[:PORT]|FOLDER]",
        ),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="What says where the probe was: panda://10.0.0.6 ... Needed unless positions come with the frames, "
            "as ntndarray, hdf5-swmr and bluesky-documents can bring them.",
            metavar="KIND[://HOST[:PORT]|FOLDER]",
        ),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="Probe to start a detector's scan from.", metavar="RUN|FILE")
    ] = None,
    dataset_map: MapOption = None,
    preset: PresetOption = None,
    pipeline: PipelineOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run's folder.")] = None,
    rate: Annotated[float | None, typer.Option(help="Frames per second; as fast as possible by default.")] = None,
    ranks: Annotated[int | None, typer.Option(help="Trainer processes.")] = None,
    record: Annotated[bool | None, typer.Option("--record", help="Write the frames to recording.h5.")] = None,
    init_weights: Annotated[
        Path | None, typer.Option(help="Start from published weights or from an earlier run.", metavar="FILE|RUN")
    ] = None,
    dashboard: Annotated[
        bool | None, typer.Option("--dashboard/--no-dashboard", help="Serve the live page (default: yes).")
    ] = None,
) -> int:
    """Run the whole workflow on this host."""
    from ptychoflow.workflow.configuration.config import load_config, option_table
    from ptychoflow.workflow.configuration.live_choice import live_options
    from ptychoflow.workflow.configuration.source_choice import source_options
    from ptychoflow.workflow.launching.launcher import launch

    live = live_options(detector, positions)
    if live and scan:
        raise UserError("a detector and a file cannot both be scanned: leave out --detector, or the file")
    if scan and probe is not None:
        raise UserError("--probe is for the scan of a detector: a file brings its own, or it is found from the frames")
    if live and dataset_map is not None:
        raise UserError("--map is for the scan of a file: leave it out, or --detector and --positions")
    if probe is not None:
        live.setdefault("source", {"kind": "live"})["probe"] = str(probe)
    options = (live or source_options(scan or (), dataset_map, pipeline)) | option_table(
        run__name=name,
        trainer__ranks=ranks,
        acquisition__rate_hz=rate,
        acquisition__record=record,
        dashboard__enabled=dashboard,
        trainer__init_weights=None if init_weights is None else str(init_weights),
    )
    return launch(load_config(preset, config, assignments or (), options=options, pipeline=pipeline))
