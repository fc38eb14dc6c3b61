"""What reaches the edge of a stream of images: the images of each task, and the ends of tasks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptychoflow.inference_edge.classification.records import TaskRecord
from ptychoflow.inference_edge.classification.tally import ImageBlock, TaskTally, block_from_arrays
from ptychoflow.inference_edge.reporting import EdgeCounter
from ptychoflow.streaming.codec import MalformedMessage
from ptychoflow.streaming.inbox import Delivery, Inbox
from ptychoflow.streaming.messages import ClassificationStart, Frames, PerspectiveEnd, ScanEnd

DELIVERIES_AT_ONCE = 64


@dataclass(frozen=True)
class _Known:
    """A message whose images had all come before."""

    sequence: int
    tally: TaskTally
    last_index: int


@dataclass(frozen=True)
class WaitingImages:
    """A batch as it was received; acknowledged when a record on the disk says that it is classified."""

    sequence: int
    tally: TaskTally
    acquired_at_s: float
    block: ImageBlock


class ImageArrivals:
    """Takes messages in and keeps images until they are classified.

    Args:
        inbox: where the messages come from.
        queue_max: images waiting in memory at most; beyond that nothing is received.
        counter: counts duplicates and refused images.
        warn: tells the user.
        earlier: what an edge before this one has classified; it is dropped when it comes again.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        queue_max: int,
        counter: EdgeCounter,
        warn: Callable[[str], None],
        earlier: Sequence[TaskRecord],
    ) -> None:
        self.start: ClassificationStart | None = None
        self.ended = False
        """Nothing more will come."""
        self.tallies = {one.task: TaskTally(one.task, earlier=one) for one in earlier if not one.complete}
        """Of the tasks that are not done with."""
        self.waiting: deque[WaitingImages] = deque()
        self.queued = 0
        """Images that wait."""
        self.newest: ImageBlock | None = None
        self._inbox, self._queue_max, self._counter, self._warn = inbox, queue_max, counter, warn
        self._closed = {one.task for one in earlier if one.complete}
        self._final: list[int] = []
        self._known: list[_Known] = []
        self._bounds: list[int] = []

    def receive(self, timeout_s: float) -> None:
        """Take in what has arrived; wait at most `timeout_s` seconds for the first message."""
        for _ in range(DELIVERIES_AT_ONCE):
            if self.queued >= self._queue_max:
                time.sleep(timeout_s)
                return
            delivery = self._inbox.receive(timeout_s)
            if delivery is None:
                return
            self._inbox.acknowledge(self._finished_with(delivery))
            timeout_s = 0.0

    def take(self, images_max: int) -> list[WaitingImages]:
        """Return the next batches of one task, together about `images_max` images; none if nothing waits."""
        taken: list[WaitingImages] = []
        count = 0
        while self.waiting and (not taken or self._fits(taken[0], count, images_max)):
            taken.append(self.waiting.popleft())
            count += len(taken[-1].block)
        self.queued -= count
        return taken

    def close(self, tally: TaskTally) -> None:
        """Forget a task whose record is written; what still comes for it is dropped."""
        del self.tallies[tally.task]
        self._closed.add(tally.task)
        self._final += tally.held

    def recorded(self) -> list[int]:
        """Return messages that the records just written make dispensable, beside those of images classified."""
        done = [one for one in self._known if one.tally.is_done(one.last_index)]
        self._known = [one for one in self._known if not one.tally.is_done(one.last_index)]
        final, self._final = self._final, []
        return final + [one.sequence for one in done]

    def finish(self) -> None:
        """Acknowledge the stream's start and end; until then an edge that is started again is sent them again."""
        self._inbox.acknowledge(self._bounds)

    def _fits(self, first: WaitingImages, count: int, images_max: int) -> bool:
        following = self.waiting[0]
        return following.tally is first.tally and count + len(following.block) <= images_max

    def _finished_with(self, delivery: Delivery) -> list[int]:
        """Take a message in; return the sequence numbers that are finished with."""
        match delivery.message:
            case ClassificationStart():
                # after the end, it is an acquisition that was started again and sends everything again
                self.start, self.ended = delivery.message, False
                self._bounds.append(delivery.sequence)
                return []
            case Frames() as frames:
                return self._enqueue(frames, delivery)
            case PerspectiveEnd(perspective=task) if task not in self._closed:
                tally = self._tally(task)
                tally.ended = True
                tally.held.append(delivery.sequence)
                return []
            case ScanEnd():
                self.ended = True
                self._bounds.append(delivery.sequence)
                return []
        return [delivery.sequence]

    def _enqueue(self, message: Frames, delivery: Delivery) -> list[int]:
        try:
            block = self._block(delivery)
        except MalformedMessage as error:
            self._counter.refused += len(delivery.arrays.get("index", ()))
            self._warn(f"dropped a message: {error}")
            return [delivery.sequence]
        if message.perspective in self._closed:
            self._counter.duplicates += len(block)
            return [delivery.sequence]
        tally = self._tally(message.perspective)
        new = tally.drop_known(block)
        self._counter.duplicates += len(block) - len(new)
        if not len(new):
            self._known.append(_Known(delivery.sequence, tally, int(block.index.max(initial=-1))))
            return []
        tally.queued += len(new)
        self.queued += len(new)
        self.newest = new
        self.waiting.append(WaitingImages(delivery.sequence, tally, message.acquired_at_s, new))
        return []

    def _block(self, delivery: Delivery) -> ImageBlock:
        if self.start is None:
            raise MalformedMessage("images came before their announcement")
        return block_from_arrays(delivery.arrays, self.start)

    def _tally(self, task: int) -> TaskTally:
        return self.tallies.setdefault(task, TaskTally(task))
