"""The acquisition process: opens what it needs, then makes one pass over the scan."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from contextlib import ExitStack, closing
from pathlib import Path

from ptychoflow.acquisition.ptychography.scan_streamer import ScanStreamer
from ptychoflow.acquisition.publishing.journal import FOLDER, Journal
from ptychoflow.acquisition.publishing.loop import open_loop
from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker import GroundTruthWorker
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.source_settings import SourceSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.settings import NetworkSettings, RunContext

log = logging.getLogger(__name__)

JOBS = "ground_truth"
"""In the run's spool: arrays of jobs for the ground-truth worker."""


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
    jobs_dir = run.folder.spool / JOBS
    shutil.rmtree(jobs_dir, ignore_errors=True)
    with ExitStack() as stack:
        loop = stack.enter_context(open_loop(acquisition, network=network, run=run, stop=stop))
        scan = stack.enter_context(closing(open_scan(source)))
        streamer = ScanStreamer(
            scan,
            acquisition,
            retrieval,
            run=run,
            loop=loop,
            worker=stack.enter_context(GroundTruthWorker(retrieval, spool_dir=jobs_dir, warn=loop.warn)),
            journal=Journal(run.folder.spool / FOLDER, scan=_identity(source, acquisition, retrieval, run)),
            recorder=_open_recorder(run.folder.recording, stack) if acquisition.record else None,
        )
        streamer.run_to_end()


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
