"""The acquisition process of labelled images: opens what it needs, then makes one pass over the data set."""

from __future__ import annotations

import json
import threading

from ptychoflow.acquisition.classification.image_streamer import ImageStreamer
from ptychoflow.acquisition.classification.reading import ImageReader
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import order_stream
from ptychoflow.acquisition.publishing.journal import FOLDER, Journal
from ptychoflow.acquisition.publishing.loop import open_loop
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.settings import NetworkSettings, RunContext


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
        UserError: the folder is not laid out as it should be, too many files cannot be read, a port is in use,
            another acquisition runs in the folder, or an earlier process of this run streamed another data set.
    """
    with open_loop(settings, network=network, run=run, stop=stop) as loop, ImageReader(source) as reader:
        tasks = order_stream(source, seed=run.seed)
        journal = Journal(run.folder.spool / FOLDER, scan=_identity(source, run))
        ImageStreamer(source, settings, tasks, run=run, loop=loop, reader=reader, journal=journal).run_to_end()


def _identity(source: ClassificationSourceSettings, run: RunContext) -> str:
    """Say what decides which images come and what each is used for."""
    return json.dumps({"seed": run.seed, "source": source.model_dump(mode="json")})
