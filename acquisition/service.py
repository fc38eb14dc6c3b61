"""The acquisition process: opens what it needs, then makes one pass over the scan."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing

from acquisition.control import Control
from acquisition.one_pass import OnePass
from acquisition.recorder import Recorder
from acquisition.retrieval.settings import RetrievalSettings
from acquisition.retrieval.worker import GroundTruthWorker
from acquisition.settings import AcquisitionSettings
from acquisition.source_settings import SourceSettings
from acquisition.sources import open_scan
from streaming.commands import CommandReceiver
from streaming.events import Part, PartState, PartStatus
from streaming.publisher import Publisher
from streaming.settings import NetworkSettings, RunContext
from streaming.telemetry import TelemetrySender

RECORDING = "recording.h5"


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

    Raises:
        UserError: the source cannot be read, a port is in use, or the ground truth asked for is not to be had.
    """
    spool_dir = run.directory / "spool"
    with ExitStack() as stack:
        telemetry = TelemetrySender(network, sender="acquisition")
        stack.callback(telemetry.close)
        telemetry.send(PartStatus(Part.ACQUISITION, PartState.STARTING))
        scan = open_scan(source)
        stack.callback(scan.close)
        publisher = Publisher(
            network,
            spool_dir=spool_dir / "stream",
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
            recorder=stack.enter_context(Recorder(run.directory / RECORDING)) if acquisition.record else None,
            telemetry=telemetry,
            control=Control(stack.enter_context(closing(CommandReceiver(network)))),
            stop=stop,
        )
        one_pass.run_to_end()
