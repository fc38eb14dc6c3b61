"""The edge service of a stream of images: classifies them as they arrive with the newest weights."""

from __future__ import annotations

import threading
from functools import partial

import torch

from ptychoflow.inference_edge.classification.image_block import ImageBlock
from ptychoflow.inference_edge.classification.image_receiver import ImageReceiver
from ptychoflow.inference_edge.classification.model import Classifier, ClassifierFactory, blank_images
from ptychoflow.inference_edge.classification.records import TaskRecords
from ptychoflow.inference_edge.classification.tally import TaskTally
from ptychoflow.inference_edge.counter import Cadence, EdgeCounter
from ptychoflow.inference_edge.edge import Edge, EdgeLinks
from ptychoflow.inference_edge.frame_queue import FrameQueue, finish_portions
from ptychoflow.inference_edge.settings import InferenceSettings
from ptychoflow.inference_edge.weights_receiver import Check
from ptychoflow.streaming.events import PartState
from ptychoflow.streaming.messages import ClassificationStart
from ptychoflow.streaming.settings import NetworkSettings, RunContext

TRIED_IMAGES = 16


def serve_classification(
    settings: InferenceSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event
) -> None:
    """Classify images until all are done and the final weights have come, or until `stop` is set.

    Blocks. Sets the number of PyTorch's CPU threads of this process. How far every task is, is kept in
    `run.folder.tasks`. Acquisition and trainer may come later, break off and come back.

    Raises:
        UserError: CUDA is asked for and there is none, the scores cannot be written, or the trainer has ended without
            weights that can be used.
    """
    torch.set_num_threads(settings.threads)
    records = TaskRecords(run.folder)
    factory = ClassifierFactory(settings)
    with EdgeLinks[Classifier].open(settings, network=network, run=run) as links:
        ClassificationEdge(settings, links, factory=factory, records=records).run(stop)


class ClassificationEdge(Edge[ClassificationStart, Classifier]):
    """Classifies images once on arrival.

    Args:
        settings: of the edge.
        links: to the other parts.
        factory: makes classifiers.
        records: keep how far every task is.
    """

    SOURCE = "images"
    ACTIVITY = "classifying"

    def __init__(
        self,
        settings: InferenceSettings,
        links: EdgeLinks[Classifier],
        *,
        factory: ClassifierFactory,
        records: TaskRecords,
    ) -> None:
        self._settings, self._factory, self._records = settings, factory, records
        self._counter, self._reported = EdgeCounter(), Cadence(settings.report_period_s)
        self._classified: list[int] = []
        """Messages that are to be acknowledged with the next record."""
        earlier = records.read()
        self._counter.inferred = sum(task.images for task in earlier)
        self._queue: FrameQueue[TaskTally, ImageBlock] = FrameQueue()
        self._images = ImageReceiver(
            links.inbox,
            queue=self._queue,
            queue_max=settings.queue_max,
            counter=self._counter,
            warn=links.warn,
            earlier=earlier,
        )
        super().__init__(links, self._images)

    def _unimaged(self) -> int:
        return self._queue.frames

    def _busy(self) -> bool:
        return self._weights.model is not None and self._queue.frames > 0

    def _check(self, start: ClassificationStart) -> Check[Classifier]:
        newest = self._images.newest
        images = blank_images(start) if newest is None else newest.image[:TRIED_IMAGES]
        return partial(self._factory.check, start=start, images=images)

    def _advance(self) -> None:
        self._classify_waiting()
        self._close_complete()

    def _end(self, *, finished: bool) -> None:
        self._report(final=True)
        if finished:
            self._acknowledge()
            self._images.acknowledge_all()
        self._links.report_status(PartState.DONE, f"{self._counter.inferred} images classified")

    def _classify_waiting(self) -> None:
        model = self._weights.model
        if model is None or not (portions := self._queue.next_batch(self._settings.batch_max)):
            return
        block = ImageBlock.join([portion.block for portion in portions])
        portions[0].batch.section.count(block, model.classify(block.image), version=model.version)
        self._classified += finish_portions(portions, counter=self._counter)

    def _close_complete(self) -> None:
        for tally in [one for one in self._images.sections.values() if one.complete]:
            self._report_task(tally, at_once=True)
            self._records.write(tally.record())
            self._images.close_section(tally)

    def _report(self, *, final: bool = False) -> None:
        self._counter.waiting = self._unimaged()
        if self._reported.due("counts", (final, *self._counter.totals()), at_once=final):
            self._links.telemetry.send(self._counter.event(final=final))
            self._acknowledge()
        for tally in self._images.sections.values():
            self._report_task(tally, at_once=final)

    def _acknowledge(self) -> None:
        """Let the publisher forget what was classified, once the disk holds that it was."""
        for tally in self._images.sections.values():
            self._records.write(tally.record())
        self._images.tell_held()
        self._links.inbox.acknowledge([*self._classified, *self._images.recorded()])
        self._classified = []

    def _report_task(self, tally: TaskTally, *, at_once: bool) -> None:
        if self._reported.due(tally.index, tally.images, at_once=at_once) and (scores := tally.event()) is not None:
            self._links.telemetry.send(scores)
