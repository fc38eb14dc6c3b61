"""`ptychoflow dashboard`: the live page, and, on a run over several hosts, the hub of its telemetry."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Annotated

import typer

from streaming.events import Part
from workflow.commands.options import ConfigOption, SetOption
from workflow.part_process import PartProcess, part_process


def dashboard(
    config: ConfigOption = None,
    assignments: SetOption = None,
    hub: Annotated[
        bool, typer.Option("--hub/--no-hub", help="Collect the telemetry too; `ptychoflow run` does it by itself.")
    ] = True,
) -> None:
    """Serve the live page until stopped; with the hub, end with summary.json and report.html (one part)."""
    from dashboard.server import serve_dashboard

    with ExitStack() as stack:
        part = stack.enter_context(part_process(Part.DASHBOARD, config, assignments))
        if hub:
            stack.enter_context(closing(_Hub(part)))
        settings = part.config
        serve_dashboard(settings.dashboard, network=settings.network, run=settings.run.context(), stop=part.stop)


class _Hub:
    """Collects telemetry while it is open, and writes the run's results when it is closed."""

    def __init__(self, part: PartProcess) -> None:
        from streaming.telemetry import TelemetryHub
        from workflow.summary import SummaryBuilder

        self._folder = part.folder
        self._builder = SummaryBuilder()
        self._hub = TelemetryHub(
            part.config.network,
            jsonl=part.folder.telemetry,
            on_event=lambda telemetry, _arrays: self._builder.add(telemetry),
        )

    def close(self) -> None:
        from workflow.results import write_results

        self._hub.close()
        _, report = write_results(self._builder, self._folder)
        typer.echo(str(report))
