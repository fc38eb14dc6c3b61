"""One pass over a data set of labelled images: each goes to the edge and, with its label, to a rank at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np

from ptychoflow.acquisition.classification.corrupt_files import CorruptFiles
from ptychoflow.acquisition.classification.decoding import Decoded
from ptychoflow.acquisition.classification.reading import ImageReader
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import ImageTask, StreamedImage
from ptychoflow.acquisition.publishing.journal import Journal
from ptychoflow.acquisition.publishing.loop import AcquisitionLoop
from ptychoflow.acquisition.publishing.streamer import SourceStreamer
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.events import ClassificationInfo, Unlabelled
from ptychoflow.streaming.messages import ClassificationStart, Frames, PerspectiveEnd, Samples
from ptychoflow.streaming.settings import RunContext

log = logging.getLogger(__name__)


class ImageStreamer(SourceStreamer):
    """Streams tasks one after the other, each image once, as soon as the receivers are there.

    Args:
        source: what is kept of images, and how many may be broken.
        settings: how they are published.
        tasks: which images come, in order.
        run: its name.
        loop: sends the stream.
        reader: reads files.
        journal: keeps which tasks were streamed.
    """

    ACQUIRED = "images read"

    def __init__(
        self,
        source: ClassificationSourceSettings,
        settings: PublishingSettings,
        tasks: Sequence[ImageTask],
        *,
        run: RunContext,
        loop: AcquisitionLoop,
        reader: ImageReader,
        journal: Journal,
    ) -> None:
        super().__init__(settings, loop=loop, journal=journal)
        self._source, self._settings, self._tasks, self._run = source, settings, tasks, run
        self._reader = reader
        self._firsts = np.cumsum([0, *(len(task.images) for task in tasks)]).tolist()
        """Number of images before each task, and of all."""
        self._corrupt = CorruptFiles(
            self._firsts[-1], share=source.corrupt_share, setting="source.corrupt_share", warn=loop.warn
        )

    def _stream_all(self) -> None:
        self._announce()
        self._wait_for_receivers()
        for number, task in enumerate(self._tasks):
            self._stream(number, task)

    def _announce(self) -> None:
        start = ClassificationStart(
            run=self._run.name,
            tasks=len(self._tasks),
            classes=sum(len(task.class_names) for task in self._tasks),
            channels=self._source.channels,
            stored_px=self._source.stored_px,
        )
        self._post_start(start)
        info = ClassificationInfo(
            source=str(self._source.folder),
            class_names=[list(task.class_names) for task in self._tasks],
            images=[len(task.images) for task in self._tasks],
            channels=start.channels,
            stored_px=start.stored_px,
            validation=[task.validation_images() for task in self._tasks],
        )
        self._loop.send(info)

    def _wait_for_receivers(self) -> None:
        """A data set does not run away; streamed to nobody, no image would be classified by what was learnt before."""
        self._loop.begin("waiting for the edge and the trainer")
        self._loop.run_until(lambda: self._publisher.everybody_is_there)
        self._loop.begin("streaming images")

    def _stream(self, number: int, task: ImageTask) -> None:
        log.info("task %d: %d images of %s", number, len(task.images), ", ".join(task.class_names))
        again = self._journal.was_acquired(number)
        for start, images, read in self._read_ahead(task):
            self._wait_for_turn(len(images), again=again)
            self._publish(number, start, images, read)
        end = PerspectiveEnd(number, 0.0, len(task.images))
        self._publisher.post_to_edge(end)
        self._publisher.post_to_ranks(end)
        self._record(lambda: self._journal.mark_acquired(number))

    def _read_ahead(self, task: ImageTask) -> Iterator[tuple[int, Sequence[StreamedImage], Decoded]]:
        """Yield the batches of a task, with the place of the first image; the next one is read meanwhile."""
        size = self._settings.frames_per_message(self._source.channels * self._source.stored_px**2)
        starts = range(0, len(task.images), size)
        reading = self._reader.read(task.images[:size])
        for start in starts:
            self._loop.run_until(reading.done)
            read = reading.result()
            reading = self._reader.read(task.images[start + size : start + 2 * size])
            yield start, task.images[start : start + size], read

    def _publish(self, number: int, start: int, images: Sequence[StreamedImage], read: Decoded) -> None:
        roles = np.array([image.role for image in images], np.uint8)
        labels = np.array([image.label for image in images], np.int64)
        self._ledger.count_frames(roles, np.isin(np.arange(len(images)), read.rows))
        self._corrupt.note({self._firsts[number] + start + row: fault for row, fault in read.faults.items()})
        if not read.rows:
            return
        arrays: Arrays = {
            "index": np.arange(start, start + len(images), dtype=np.int32)[read.rows],
            "role": roles[read.rows],
            "label": labels[read.rows],
            "image": read.pixels,
        }
        self._publisher.post_to_edge(Frames(number, 0.0, time.time()), arrays)
        if not self._settings.trainer:
            self._ledger.count_unlabelled(len(read.pixels), Unlabelled.NO_TRAINER)
            return
        self._ledger.count_labels(np.zeros(len(read.pixels), bool))
        self._publisher.post_samples(Samples(number), arrays)
