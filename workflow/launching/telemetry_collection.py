"""Collects a run's telemetry and passes commands on where no launcher does, and sums the run up in the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.commands import CommandHub
from ptychoflow.streaming.events import WATCHING, Telemetry
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.streaming.telemetry_log import TelemetryLog
from ptychoflow.workflow.configuration.config import AnyConfig
from ptychoflow.workflow.launching.run_folder import claimed, describe_run
from ptychoflow.workflow.results import headline, write_results

log = logging.getLogger(__name__)


@contextmanager
def collected_telemetry(config: AnyConfig, folder: RunFolder) -> Iterator[None]:
    """Collect telemetry and pass commands on within the context; write summary and report at the end.

    The run was interrupted unless its acquisition has said that it came to its end.
    Started again, it goes on from what the folder holds. Where no part that works was heard meanwhile,
    the results that are there stay.

    Raises:
        UserError: somebody else runs in the folder; another version of the program wrote its telemetry; a port is in
            use; or, at the end, the results cannot be written.
    """
    with claimed(folder):
        state, came = RunState(), False
        if folder.telemetry.exists():
            state.apply_all(TelemetryLog(folder.telemetry))

        def take(telemetry: Telemetry, _arrays: Arrays) -> None:
            nonlocal came
            came |= telemetry.part not in WATCHING
            state.apply(telemetry)

        hub = TelemetryHub(config.network, jsonl=folder.telemetry, on_event=take)
        with closing(hub), closing(CommandHub(config.network)):
            if not folder.summary.exists():
                describe_run(config, folder)
            yield
        if folder.summary.exists() and not came:
            log.info("nothing came: the results in %s stay as they are", folder.path)
            return
        summary, report = write_results(state, folder, interrupted=not state.parts.complete)
        log.info("%s", headline(summary))
        log.info("report: %s", report)
