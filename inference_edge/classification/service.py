"""The edge service of a stream of images: classifies them as they arrive with the newest weights."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, closing
from functools import partial

import numpy as np
import torch

from ptychoflow.inference_edge.classification.arrivals import ImageArrivals
from ptychoflow.inference_edge.classification.model import Classifier, ClassifierMaker, blank_images
from ptychoflow.inference_edge.classification.records import TaskRecords
from ptychoflow.inference_edge.classification.tally import TaskTally
from ptychoflow.inference_edge.reporting import Cadence, EdgeCounter
from ptychoflow.inference_edge.settings import InferenceSettings
from ptychoflow.inference_edge.weights_intake import Accept, WeightsIntake, open_weights
from ptychoflow.streaming.commands import CommandReceiver
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PartState, PartStatus, WarningRaised
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import ClassificationStart
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender

log = logging.getLogger(__name__)

IDLE_S = 0.02
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
    with ExitStack() as stack:
        telemetry = stack.enter_context(closing(TelemetrySender(network, part=Part.EDGE)))
        commands = stack.enter_context(closing(CommandReceiver(network)))
        warn = partial(_send_warning, telemetry)
        inbox = stack.enter_context(Inbox(network, consumer="edge", port=network.frames_port, warn=warn))
        weights: WeightsIntake[Classifier] = stack.enter_context(
            open_weights(network, run, telemetry=telemetry, weights_kept=settings.weights_kept)
        )
        records = TaskRecords(run.folder)
        _Edge(settings, inbox=inbox, weights=weights, telemetry=telemetry, records=records).run(commands, stop)


def _send_warning(telemetry: TelemetrySender, text: str) -> None:
    telemetry.send(WarningRaised(text))


class _Edge:
    def __init__(
        self,
        settings: InferenceSettings,
        *,
        inbox: Inbox,
        weights: WeightsIntake[Classifier],
        telemetry: TelemetrySender,
        records: TaskRecords,
    ) -> None:
        self._settings, self._inbox, self._telemetry, self._records = settings, inbox, telemetry, records
        self._weights, self._maker = weights, ClassifierMaker(settings)
        self._counter, self._reported = EdgeCounter(), Cadence(settings.report_period_s)
        self._classified: list[int] = []
        """Messages that are to be acknowledged with the next record."""
        earlier = records.read()
        self._counter.inferred = sum(task.images for task in earlier)
        self._arrivals = ImageArrivals(
            inbox,
            queue_max=settings.queue_max,
            counter=self._counter,
            warn=self._warn,
            earlier=earlier,
        )

    def run(self, commands: CommandReceiver, stop: threading.Event) -> None:
        self._tell(PartState.STARTING, "waiting for images")
        while not (stop.is_set() or self._finished()):
            busy = self._weights.model is not None and self._arrivals.queued > 0
            self._arrivals.receive(0.0 if busy else IDLE_S)
            self._heed(commands)
            self._take_weights()
            self._classify_waiting()
            self._close_complete()
            self._report()
        self._report(at_once=True)
        if self._finished():
            self._acknowledge()
            self._arrivals.finish()
        self._tell(PartState.DONE, f"{self._counter.inferred} images classified")

    def _finished(self) -> bool:
        return self._arrivals.ended and self._weights.final_seen and not self._arrivals.queued

    def _heed(self, commands: CommandReceiver) -> None:
        if self._weights.heed(commands):
            self._tell_version()

    def _take_weights(self) -> None:
        start = self._arrivals.start
        if start is None:
            return
        if self._weights.settle():
            self._tell_version()
        if self._weights.final_seen and self._weights.model is None:
            raise UserError(
                "edge: no image can be classified, all weights up to the final ones were refused; see its log"
            )
        self._weights.fetch(lambda: self._check(start))

    def _check(self, start: ClassificationStart) -> Accept[Classifier]:
        newest = self._arrivals.newest
        images = blank_images(start) if newest is None else newest.image[:TRIED_IMAGES]
        return partial(self._maker.accept, start=start, images=images)

    def _classify_waiting(self) -> None:
        model = self._weights.model
        if model is None or not (batches := self._arrivals.take(self._settings.batch_max)):
            return
        logits = model.classify(np.concatenate([batch.block.image for batch in batches]))
        now_s = time.time()
        parts = torch.split(logits, [len(batch.block) for batch in batches])
        for batch, outputs in zip(batches, parts, strict=True):
            batch.tally.add(batch.block, outputs, version=model.version)
            batch.tally.queued -= len(batch.block)
            self._counter.imaged(len(batch.block), acquired_at_s=batch.acquired_at_s, now_s=now_s)
            self._classified.append(batch.sequence)

    def _close_complete(self) -> None:
        for tally in [one for one in self._arrivals.tallies.values() if one.complete]:
            self._report_task(tally, at_once=True)
            self._records.write(tally.record())
            self._arrivals.close(tally)

    def _report(self, *, at_once: bool = False) -> None:
        self._counter.waiting = self._arrivals.queued
        if self._reported.due("counts", self._counter.totals(), at_once=at_once):
            self._telemetry.send(self._counter.event())
            self._acknowledge()
        for tally in self._arrivals.tallies.values():
            self._report_task(tally, at_once=at_once)

    def _acknowledge(self) -> None:
        """Let the publisher forget what was classified, once the disk holds that it was."""
        for tally in self._arrivals.tallies.values():
            self._records.write(tally.record())
        self._inbox.acknowledge([*self._classified, *self._arrivals.recorded()])
        self._classified = []

    def _report_task(self, tally: TaskTally, *, at_once: bool) -> None:
        if self._reported.due(tally.task, tally.images, at_once=at_once) and (scores := tally.event()) is not None:
            self._telemetry.send(scores)

    def _tell_version(self) -> None:
        if self._weights.model is not None:
            self._tell(PartState.RUNNING, f"classifying with weights {self._weights.model.version}")

    def _tell(self, state: PartState, text: str) -> None:
        log.info("%s: %s", state.value, text)
        self._telemetry.send(PartStatus(state, text))

    def _warn(self, text: str) -> None:
        log.warning("%s", text)
        _send_warning(self._telemetry, text)
