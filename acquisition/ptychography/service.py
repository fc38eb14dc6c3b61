"""The acquisition process: opens what it needs, then makes one pass over the scan."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from contextlib import ExitStack, closing
from pathlib import Path

from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader, arrivals_files
from ptychoflow.acquisition.detectors.live_scan import LiveScan
from ptychoflow.acquisition.detectors.receiver import Receiver
from ptychoflow.acquisition.detectors.sources import make_decoder
from ptychoflow.acquisition.ptychography.keeping import Keeper
from ptychoflow.acquisition.ptychography.scan_streamer import ScanStreamer
from ptychoflow.acquisition.publishing.journal import FOLDER, Journal
from ptychoflow.acquisition.publishing.loop import AcquisitionLoop, open_loop
from ptychoflow.acquisition.recorder import Recorder, was_stopped
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker import GroundTruthWorker
from ptychoflow.acquisition.scan import OpenEndedScan
from ptychoflow.acquisition.scan_settings import ScanSourceSettings
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import load_probe, open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.streaming.settings import NetworkSettings, RunContext

log = logging.getLogger(__name__)

JOBS = "ground_truth"
"""In the run's spool: arrays of jobs for the ground-truth worker."""


def acquire(
    source: ScanSourceSettings,
    acquisition: AcquisitionSettings,
    retrieval: RetrievalSettings,
    *,
    network: NetworkSettings,
    run: RunContext,
    stop: threading.Event,
    keep_frames: bool = False,
) -> bool:
    """Publish a whole scan; return when every receiver has finished with it, or soon after `stop` is set.

    Goes on with the scan of an earlier process that was ended or killed in the same run folder. With `keep_frames`,
    those of the last perspectives are kept in its spool for who hands them over. Returns whether it came to its end.

    Raises:
        UserError: the source cannot be read, a port is in use, another acquisition runs in the folder, the ground
            truth asked for is not to be had, or the earlier process acquired another scan or has deleted its arrivals.
    """
    if retrieval.warm_start and not acquisition.edge:
        raise UserError("retrieval.warm_start needs an edge: phase retrieval starts from what it images")
    keep_freed_memory()
    jobs_dir = run.folder.spool / JOBS
    with ExitStack() as stack:
        loop = stack.enter_context(open_loop(acquisition, network=network, run=run, stop=stop))
        shutil.rmtree(jobs_dir, ignore_errors=True)
        journal = Journal(run.folder.spool / FOLDER, scan=_identity(source, acquisition, retrieval, run))
        scan = stack.enter_context(closing(_open_source(source, loop, run, stack, told=journal.acquired)))
        streamer = ScanStreamer(
            scan,
            acquisition,
            retrieval,
            run=run,
            loop=loop,
            worker=stack.enter_context(GroundTruthWorker(retrieval, spool_dir=jobs_dir, warn=loop.warn)),
            journal=journal,
            recorder=_open_recorder(run.folder.recording, stack) if acquisition.record else None,
        )
        if keep_frames:
            streamer.on_acquired = Keeper(run.folder.kept_perspectives, warn=loop.warn).keep
        return streamer.run_to_end()


def _open_source(
    source: ScanSourceSettings, loop: AcquisitionLoop, run: RunContext, stack: ExitStack, *, told: int
) -> OpenEndedScan:
    """Open a scan, or begin to receive one."""
    if isinstance(source, ReplaySettings | SimulationSettings):
        return open_scan(source)
    if told and not arrivals_files(run.folder.arrivals):
        raise UserError(
            f"there is nothing in {run.folder.arrivals} from which the scan could go on, of which {told} perspectives "
            "were acquired: it has ended (source.keep_arrivals = false), or it was deleted; choose another run.name"
        )
    receiver = stack.enter_context(closing(Receiver(source, run.folder.arrivals, warn=loop.warn)))
    # a detector does not wait while the acquisition does: paused, or for a disk
    loop.attendants.append(receiver.attend)
    scan = LiveScan(
        source,
        ArrivalsReader(run.folder.arrivals),
        [make_decoder(one) for one in source.sources],
        attend=receiver.attend,
        probe=None if source.probe is None else load_probe(source.probe),
        ledger=loop.ledger,
        warn=loop.warn,
        time_of_day_s=receiver.time_of_day_s,
    )
    scan.told = told
    return scan


def _open_recorder(path: Path, stack: ExitStack) -> Recorder | None:
    if path.exists() and not was_stopped(path):
        log.info("%s is complete and is not written again", path)
        return None
    return stack.enter_context(Recorder(path, goes_on=True))


def _identity(
    source: ScanSourceSettings, acquisition: AcquisitionSettings, retrieval: RetrievalSettings, run: RunContext
) -> str:
    """Say what decides which frames come, what each is used for, and their ground truth."""
    sections = {"source": source, "roles": acquisition.roles, "retrieval": retrieval}
    return json.dumps({"seed": run.seed} | {name: one.model_dump(mode="json") for name, one in sections.items()})
