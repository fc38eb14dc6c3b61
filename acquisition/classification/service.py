"""The acquisition process of labelled images: opens what it needs, then makes one pass over the data set."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence

from ptychoflow.acquisition.classification.image_streamer import ImageStreamer
from ptychoflow.acquisition.classification.reading import ImageReader
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import ImageTask, order_stream
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
            another acquisition runs in the folder, or an earlier process of this run streamed another data set or other
            files of it.
    """
    with open_loop(settings, network=network, run=run, stop=stop) as loop, ImageReader(source) as reader:
        tasks = order_stream(source, seed=run.seed)
        journal = Journal(run.folder.spool / FOLDER, scan=_identity(source, tasks, run))
        ImageStreamer(source, settings, tasks, run=run, loop=loop, reader=reader, journal=journal).run_to_end()


def _identity(source: ClassificationSourceSettings, tasks: Sequence[ImageTask], run: RunContext) -> str:
    """Say which images come, in which order, and what else decides what each is used for."""
    names = hashlib.sha256()
    for image in (image for task in tasks for image in task.images):
        names.update(os.fsencode(image.path.relative_to(source.folder)) + b"\0")
    return json.dumps({"seed": run.seed, "source": source.model_dump(mode="json"), "images": names.hexdigest()})
