"""`ptychoflow dashboard`: the live page, and, on a run over several hosts, the hub of its telemetry."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from ptychoflow.streaming.events import Part
from ptychoflow.workflow.commands.options import ConfigOption, SetOption


def dashboard(
    config: ConfigOption = None,
    assignments: SetOption = None,
    hub: Annotated[
        bool, typer.Option("--hub/--no-hub", help="Collect the telemetry too; `ptychoflow run` does it by itself.")
    ] = True,
) -> None:
    """Serve the live page of a run until stopped.

    One part of a run over several hosts. It also collects the telemetry of all parts, and writes summary.json and
    report.html when it is stopped.
    """
    from ptychoflow.dashboard.server import serve_dashboard
    from ptychoflow.dashboard.token import make_token
    from ptychoflow.workflow.launching.dashboard_token import show_token, take_token
    from ptychoflow.workflow.launching.part_process import part_process
    from ptychoflow.workflow.launching.telemetry_collection import collected_telemetry

    with ExitStack() as stack:
        part = stack.enter_context(part_process(Part.DASHBOARD, config, assignments))
        settings = part.config
        if hub:
            stack.enter_context(collected_telemetry(settings, part.folder))
        given = take_token()
        token = given or make_token()
        serve_dashboard(
            settings.dashboard,
            network=settings.network,
            run=settings.run.context(),
            stop=part.stop,
            token=token,
            on_served=None if given else lambda url: show_token(token, url),
        )
