"""The acquisition process: opens what it needs, then makes one pass over the scan."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from contextlib import ExitStack, closing
from pathlib import Path

from ptychoflow.acquisition.control import Control
from ptychoflow.acquisition.one_pass import OnePass
from ptychoflow.acquisition.outcomes import Outcomes
from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker import GroundTruthWorker
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.source_settings import SourceSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.commands import CommandReceiver
from ptychoflow.streaming.events import Part, PartState, PartStatus
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender

log = logging.getLogger(__name__)

STREAM, OUTCOMES = "stream", "outcomes"
"""Parts of the run's spool: messages that memory does not hold, and what a resumed run need not do again."""


def acquire(
    source: SourceSettings,
    acquisition: AcquisitionSettings,
    retrieval: RetrievalSettings,
    *,
    network: NetworkSettings,
    run: RunContext,
    stop: threading.Event,
) -> None:
    """Publish a whole scan; return when every receiver has finished with it, or soon after `stop` is set.

    Goes on with the scan of an earlier process that was ended or killed in the same run folder.

    Raises:
        UserError: the source cannot be read, a port is in use, the ground truth asked for is not to be had, or the
            earlier process acquired another scan.
    """
    spool_dir = run.folder.spool
    for left_behind in (spool_dir / STREAM, spool_dir / "ground_truth"):
        shutil.rmtree(left_behind, ignore_errors=True)
    with ExitStack() as stack:
        telemetry = TelemetrySender(network, part=Part.ACQUISITION)
        stack.callback(telemetry.close)
        telemetry.send(PartStatus(PartState.STARTING))
        scan = open_scan(source)
        stack.callback(scan.close)
        publisher = Publisher(
            network,
            spool_dir=spool_dir / STREAM,
            memory_bytes=acquisition.spool_memory_bytes,
            edge=acquisition.edge,
            trainer=acquisition.trainer,
        )
        stack.callback(publisher.close, linger_s=1.0)
        one_pass = OnePass(
            scan=scan,
            settings=acquisition,
            retrieval=retrieval,
            run=run,
            publisher=publisher,
            worker=stack.enter_context(GroundTruthWorker(retrieval, spool_dir=spool_dir / "ground_truth")),
            outcomes=Outcomes(spool_dir / OUTCOMES, scan=_identity(source, acquisition, retrieval, run)),
            recorder=_open_recorder(run.folder.recording, stack) if acquisition.record else None,
            telemetry=telemetry,
            control=Control(stack.enter_context(closing(CommandReceiver(network)))),
            stop=stop,
        )
        one_pass.run_to_end()


def _open_recorder(path: Path, stack: ExitStack) -> Recorder | None:
    if path.exists():
        log.info("%s is complete and is not written again", path)
        return None
    return stack.enter_context(Recorder(path))


def _identity(
    source: SourceSettings, acquisition: AcquisitionSettings, retrieval: RetrievalSettings, run: RunContext
) -> str:
    """Say what decides which frames come, what each is used for, and their ground truth."""
    sections = {"source": source, "roles": acquisition.roles, "retrieval": retrieval}
    return json.dumps({"seed": run.seed} | {name: one.model_dump(mode="json") for name, one in sections.items()})
