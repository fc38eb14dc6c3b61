"""Collects a run's telemetry where no launcher does, and sums it up in the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

from streaming.telemetry import TelemetryHub
from workflow.config import Config
from workflow.results import headline, write_results
from workflow.run_folder import RunFolder, describe_run
from workflow.summary import SummaryBuilder

log = logging.getLogger(__name__)


@contextmanager
def collected_telemetry(config: Config, folder: RunFolder) -> Iterator[None]:
    """Collect telemetry within the context; write what a run's folder holds, summary and report at the end."""
    describe_run(config, folder)
    builder = SummaryBuilder()
    hub = TelemetryHub(
        config.network, jsonl=folder.telemetry, on_event=lambda telemetry, _arrays: builder.add(telemetry)
    )
    with closing(hub):
        yield
    summary, report = write_results(builder, folder)
    log.info("%s", headline(summary))
    log.info("report: %s", report)
