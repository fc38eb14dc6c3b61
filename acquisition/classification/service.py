"""The acquisition process of labelled images: opens what it needs, then makes one pass over the data set."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import ExitStack, closing

from ptychoflow.acquisition.classification.image_pass import ImagePass
from ptychoflow.acquisition.classification.reading import ImageReader
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import order_stream
from ptychoflow.acquisition.control import Control
from ptychoflow.acquisition.ledger import Ledger
from ptychoflow.acquisition.outcomes import Outcomes
from ptychoflow.acquisition.pump import Pump
from ptychoflow.acquisition.service import OUTCOMES, STREAM
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.commands import CommandReceiver
from ptychoflow.streaming.events import Part, PartState, PartStatus
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender


def acquire_images(
    source: ClassificationSourceSettings,
    settings: PublishingSettings,
    *,
    network: NetworkSettings,
    run: RunContext,
    stop: threading.Event,
) -> None:
    """Publish a data set; return when every receiver has finished with it, or soon after `stop` is set.

    Raises:
        UserError: the folder is not laid out as it should be, too many files cannot be read, a port is in use, or an
            earlier process of this run streamed another data set.
    """
    spool_dir = run.folder.spool
    shutil.rmtree(spool_dir / STREAM, ignore_errors=True)
    with ExitStack() as stack:
        telemetry = stack.enter_context(closing(TelemetrySender(network, part=Part.ACQUISITION)))
        telemetry.send(PartStatus(PartState.STARTING))
        tasks = order_stream(source, seed=run.seed)
        publisher = Publisher(
            network,
            spool_dir=spool_dir / STREAM,
            memory_bytes=settings.spool_memory_bytes,
            edge=settings.edge,
            trainer=settings.trainer,
        )
        stack.callback(publisher.close, linger_s=1.0)
        ledger = Ledger()
        control = Control(stack.enter_context(closing(CommandReceiver(network))))
        one_pass = ImagePass(
            source,
            settings,
            tasks,
            run=run.name,
            publisher=publisher,
            pump=Pump(publisher, telemetry=telemetry, control=control, ledger=ledger, stop=stop),
            reader=stack.enter_context(ImageReader(source)),
            outcomes=Outcomes(spool_dir / OUTCOMES, scan=_identity(source, run)),
            ledger=ledger,
        )
        one_pass.run_to_end()


def _identity(source: ClassificationSourceSettings, run: RunContext) -> str:
    """Say what decides which images come and what each is used for."""
    return json.dumps({"seed": run.seed, "source": source.model_dump(mode="json")})
