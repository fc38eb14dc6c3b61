"""`ptychoflow detector`: a scan replayed as a detector, or as what says where the probe was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychoflow.workflow.commands.options import SetOption


def detector(
    source: Annotated[
        str,
        typer.Argument(
            help="What to speak like, and where to listen or write: panda://127.0.0.1:8889, hdf5-swmr://folder ...",
            metavar="SOURCE[://HOST[:PORT]|FOLDER]",
        ),
    ],
    scan: Annotated[Path, typer.Argument(help="Scan file to send.", metavar="SCAN")],
    *,
    rate: Annotated[
        float | None, typer.Option(help="Frames per second; as fast as they are taken by default.", min=0.001)
    ] = None,
    series: Annotated[
        int | None, typer.Option(help="Series to send; each perspective of the scan once by default.", min=1)
    ] = None,
    pause: Annotated[float, typer.Option(help="Seconds between series.", min=0.0)] = 2.0,
    abort: Annotated[
        list[int] | None, typer.Option(help="Break this series off in the middle; may be repeated.", min=1)
    ] = None,
    assignments: SetOption = None,
) -> None:
    """Send a scan as a detector does: a second process sends its positions in the same way."""
    import threading
    from contextlib import closing, suppress

    from ptychoflow.acquisition.detectors.player import play
    from ptychoflow.acquisition.detectors.simulators import make_simulator
    from ptychoflow.acquisition.source_settings import ReplaySettings
    from ptychoflow.acquisition.sources import open_scan
    from ptychoflow.workflow.configuration.live_choice import simulator_settings
    from ptychoflow.workflow.launching.part_process import stop_on_signals
    from ptychoflow.workflow.logs import stderr_console
    from ptychoflow.workflow.progress_bar import ProgressBar

    settings = simulator_settings(source, assignments or ())
    stop = threading.Event()
    with (
        closing(open_scan(ReplaySettings(path=scan))) as opened,
        stop_on_signals(stop),
        closing(make_simulator(settings)) as simulator,
    ):
        frames = (
            opened.frames if series is None else sum(len(opened.perspective(i % len(opened))) for i in range(series))
        )
        sent = 0
        with ProgressBar(stderr_console()) as bar, suppress(InterruptedError):

            def show(sent_now: int) -> None:
                nonlocal sent
                sent = sent_now
                bar.show(settings.kind, sent, frames)

            play(
                simulator,
                opened,
                rate_hz=rate,
                pause_s=pause,
                stop=stop,
                series=series,
                broken_off=abort or (),
                on_frame=show,
            )
    typer.echo(f"{settings.kind}: {sent} frames sent")
