"""Collects a run's telemetry and passes commands on where no launcher does, and sums the run up in the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ptychoflow.streaming.commands import CommandHub
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.workflow.configuration.config import AnyConfig
from ptychoflow.workflow.launching.run_folder import describe_run
from ptychoflow.workflow.results import headline, write_results

log = logging.getLogger(__name__)


@contextmanager
def collected_telemetry(config: AnyConfig, folder: RunFolder) -> Iterator[None]:
    """Collect telemetry and pass commands on within the context; write summary and report at the end."""
    describe_run(config, folder)
    state = RunState()
    hub = TelemetryHub(
        config.network, jsonl=folder.telemetry, on_event=lambda telemetry, _arrays: state.apply(telemetry)
    )
    with closing(hub), closing(CommandHub(config.network)):
        yield
    summary, report = write_results(state, folder)
    log.info("%s", headline(summary))
    log.info("report: %s", report)
