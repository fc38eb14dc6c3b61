"""One pass over a data set of labelled images: each goes to the edge and, with its label, to a rank at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ptychoflow.acquisition.classification.reading import ImageReader, ReadImages
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import ImageTask, StreamedImage
from ptychoflow.acquisition.ledger import Ledger
from ptychoflow.acquisition.outcomes import Outcomes
from ptychoflow.acquisition.pacing import Pacer
from ptychoflow.acquisition.pump import Pump, Stopped
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import ClassificationInfo, PartState, PartStatus, Unlabelled
from ptychoflow.streaming.messages import ClassificationStart, Frames, PerspectiveEnd, Samples
from ptychoflow.streaming.publisher import Publisher

log = logging.getLogger(__name__)

FAULTS_NAMED = 3
"""Files that an error names."""


@dataclass
class ImagePass:
    """Streams tasks one after the other, each image once, as soon as the receivers are there.

    A run that is resumed passes over everything again; receivers drop what they are done with, and tasks that were
    streamed to their end come without pacing.
    """

    source: ClassificationSourceSettings
    settings: PublishingSettings
    tasks: Sequence[ImageTask]
    run: str
    """Its name."""
    publisher: Publisher
    pump: Pump
    reader: ImageReader
    outcomes: Outcomes
    """Keeps which tasks were streamed."""
    ledger: Ledger
    _faults: list[str] = field(default_factory=list, init=False)

    def run_to_end(self) -> None:
        """Stream everything and wait until every receiver has finished with it, or until the run is stopped.

        Raises:
            UserError: too many files cannot be read.
        """
        try:
            self._announce()
            self._wait_for_receivers()
            pacer = Pacer(self.settings.rate_hz)
            for number, task in enumerate(self.tasks):
                self._stream(number, task, pacer)
            self.pump.end_stream()
        except Stopped:
            self.ledger.count_rest_unlabelled()
            log.info("asked to stop: %d images read", self.ledger.acquired)
        self.pump.send_counts()
        self.pump.send(PartStatus(PartState.DONE, f"{self.ledger.acquired} images read"))

    def _announce(self) -> None:
        start = ClassificationStart(
            run=self.run,
            tasks=len(self.tasks),
            classes=sum(len(task.class_names) for task in self.tasks),
            channels=self.source.channels,
            stored_px=self.source.stored_px,
        )
        self.publisher.post_to_edge(start)
        self.publisher.post_to_ranks(start)
        info = ClassificationInfo(
            source=str(self.source.folder),
            class_names=[list(task.class_names) for task in self.tasks],
            images=[len(task.images) for task in self.tasks],
            channels=start.channels,
            stored_px=start.stored_px,
        )
        self.pump.send(info)

    def _wait_for_receivers(self) -> None:
        """A data set does not run away; streamed to nobody, no image would be classified by what was learnt before."""
        self.pump.send(PartStatus(PartState.RUNNING, "waiting for the edge and the trainer"))
        self.pump.work_until(lambda: self.publisher.everybody_is_there)
        self.pump.send(PartStatus(PartState.RUNNING, "streaming images"))

    def _stream(self, number: int, task: ImageTask, pacer: Pacer) -> None:
        log.info("task %d: %d images of %s", number, len(task.images), ", ".join(task.class_names))
        again = self.outcomes.was_acquired(number)
        for start, images, read in self._read_ahead(task):
            self.pump.work_for(0.0 if again else pacer.wait_s(len(images)))
            self.pump.wait_while_paused()
            self.pump.wait_for_room()
            self._publish(number, start, images, read)
        end = PerspectiveEnd(number, 0.0, len(task.images))
        self.publisher.post_to_edge(end)
        self.publisher.post_to_ranks(end)
        self._note_acquired(number)

    def _read_ahead(self, task: ImageTask) -> Iterator[tuple[int, Sequence[StreamedImage], ReadImages]]:
        """Yield the batches of a task, with the place of the first image; the next one is read meanwhile."""
        size = self.settings.batch_frames
        starts = range(0, len(task.images), size)
        reading = self.reader.read(task.images[:size])
        for start in starts:
            self.pump.work_until(reading.done)
            read = reading.result()
            reading = self.reader.read(task.images[start + size : start + 2 * size])
            yield start, task.images[start : start + size], read

    def _publish(self, number: int, start: int, images: Sequence[StreamedImage], read: ReadImages) -> None:
        roles = np.array([image.role for image in images], np.uint8)
        labels = np.array([image.label for image in images], np.int64)
        self.ledger.count_frames(roles, read.good)
        self._tell_faults(read.faults)
        if not len(read.pixels):
            return
        arrays: Arrays = {
            "index": np.arange(start, start + len(images), dtype=np.int32)[read.good],
            "role": roles[read.good],
            "label": labels[read.good],
            "image": read.pixels,
        }
        self.publisher.post_to_edge(Frames(number, 0.0, time.time()), arrays)
        if not self.settings.trainer:
            self.ledger.count_unlabelled(len(read.pixels), Unlabelled.NO_TRAINER)
            return
        self.ledger.count_labels(np.zeros(len(read.pixels), bool))
        self.publisher.post_samples(Samples(number), arrays)

    def _tell_faults(self, faults: Sequence[str]) -> None:
        for fault in faults:
            self.pump.warn(f"left out an image that cannot be read: {fault}")
        self._faults.extend(faults)
        total = sum(len(task.images) for task in self.tasks)
        if len(self._faults) > self.source.corrupt_share * total:
            raise UserError(
                f"{len(self._faults)} of {total} images cannot be read, more than source.corrupt_share = "
                f"{self.source.corrupt_share:g} allows: {'; '.join(self._faults[:FAULTS_NAMED])}"
            )

    def _note_acquired(self, number: int) -> None:
        try:
            self.outcomes.note_acquired(number)
        except OSError as error:
            self.pump.warn(f"a resumed run would stream this task at its rate again; it cannot be noted: {error}")
