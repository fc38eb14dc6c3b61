"""What reaches an edge: the announcement of the stream, frames, and the ends of its sections."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np

from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.frame_block import FrameBlock
from ptychoflow.inference_edge.frame_queue import FrameQueue, ReceivedBatch
from ptychoflow.inference_edge.section import Section
from ptychoflow.streaming.codec import Arrays, MalformedMessage
from ptychoflow.streaming.inbox import Delivery, Inbox
from ptychoflow.streaming.messages import Frames, PerspectiveEnd, ScanEnd, StreamStart

DELIVERIES_AT_ONCE = 16
MAX_PIXELS = 1 << 26
"""Of a frame or an image: several times as many as the largest detectors have."""

StartT = TypeVar("StartT", bound=StreamStart)
SectionT = TypeVar("SectionT", bound=Section)
BlockT = TypeVar("BlockT", bound=FrameBlock)


class StreamReceiver(ABC, Generic[StartT, SectionT, BlockT]):
    """Receives messages and keeps what is needed until frames are imaged.

    Args:
        inbox: where the messages come from.
        start: the kind of announcement that the stream must begin with.
        queue: where frames wait.
        queue_max: frames waiting in memory at most; beyond that nothing is received.
        counter: counts duplicates and refused frames.
        warn: tells the user.
        pause: waits that long while nothing can be received, or shorter if something else is to be done.
        closed: sections that an edge before this one is done with; what comes for them is dropped.
    """

    def __init__(
        self,
        inbox: Inbox,
        start: type[StartT],
        *,
        queue: FrameQueue[SectionT, BlockT],
        queue_max: int,
        counter: EdgeCounter,
        warn: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
        closed: Iterable[int] = (),
    ) -> None:
        self.start: StartT | None = None
        """What the stream was announced as last."""
        self.ended = False
        """Nothing more will come."""
        self.emptied = False
        """All that had arrived was taken the last time."""
        self.sections: dict[int, SectionT] = {}
        """Those that can still change, by their index."""
        self.newest: BlockT | None = None
        """The frames received last."""
        self.final: list[int] = []
        """Messages about sections that are closed, to be acknowledged once the disk holds their results."""
        self._inbox, self._start_type, self._queue = inbox, start, queue
        self._queue_max, self._counter, self._warn, self._pause = queue_max, counter, warn, pause
        self._closed = set(closed)
        self._bounds: list[int] = []
        self._to_hold: list[int] = []

    @property
    def full(self) -> bool:
        """As many frames wait in memory as may: nothing is received until some are imaged."""
        return self._queue.in_turn >= self._queue_max

    def receive(self, timeout_s: float) -> None:
        """Receive what has arrived; wait at most `timeout_s` seconds for the first message."""
        finished: list[int] = []
        self.emptied = False
        for _ in range(DELIVERIES_AT_ONCE):
            if self.full:
                self._inbox.attend()
                self._pause(timeout_s)
                break
            delivery = self._inbox.receive(timeout_s)
            if delivery is None:
                self.emptied = True
                break
            finished += self._finished_with(delivery)
            timeout_s = 0.0
        self._inbox.acknowledge(finished)

    def hold(self, section: SectionT, sequences: list[int]) -> None:
        """Have messages kept for an edge that is started again, until what is made of the section is final.

        The publisher knows with the next `tell_held`.
        """
        section.held += sequences
        self._to_hold += sequences

    def tell_held(self) -> None:
        """Tell the publisher what to keep for an edge that is started again alone; one message for many is cheaper."""
        self._inbox.hold(self._to_hold)
        self._to_hold = []

    def close_section(self, section: SectionT) -> None:
        """Forget a section; what still comes for it is dropped."""
        del self.sections[section.index]
        self._closed.add(section.index)
        self.final += section.held

    def acknowledge_final(self) -> None:
        """Let the publisher forget what led to results that the disk holds."""
        self.tell_held()
        self._inbox.acknowledge(self.final)
        self.final = []

    def acknowledge_all(self) -> None:
        """Acknowledge the stream's start and end too; until then an edge that is started again is sent them again."""
        self.tell_held()
        self._inbox.acknowledge([*self.final, *self._bounds])

    @abstractmethod
    def _parse(self, arrays: Arrays, start: StartT) -> BlockT:
        """Take the arrays of frames.

        Raises:
            MalformedMessage: they are not what was announced.
        """

    @abstractmethod
    def _open_section(self, index: int, angle_deg: float) -> SectionT:
        """Return a section of which nothing has come before."""

    @abstractmethod
    def _keep_repeated(self, sequence: int, section: SectionT, block: BlockT) -> None:
        """Keep the number of a message of which no frame is imaged: all have come before, or come too late."""

    @abstractmethod
    def _handle_start(self, start: StartT) -> None:
        """Do what else an announcement asks for, before it counts.

        Raises:
            MalformedMessage: nothing is as it announces.
        """

    def _handle_other(self, delivery: Delivery) -> list[int]:
        """Receive what only this stream has; return the sequence numbers that are finished with."""
        return [delivery.sequence]

    def _refuse_late(self, section: SectionT, frames: int) -> None:
        self._counter.refused += frames
        self._warn(
            f"perspective {section.index}: {frames} frames came after its images were finished; they are not imaged"
        )

    def _section(self, index: int, angle_deg: float) -> SectionT:
        if index not in self.sections:
            self.sections[index] = self._open_section(index, angle_deg)
        return self.sections[index]

    def _drop(self, sequence: int) -> list[int]:
        """Have a message about a closed section acknowledged once the disk holds that one's results."""
        self.final.append(sequence)
        return []

    def _finished_with(self, delivery: Delivery) -> list[int]:
        """Receive a message; return the sequence numbers that are finished with."""
        try:
            return self._handle(delivery)
        except MalformedMessage as error:
            if isinstance(delivery.message, Frames):
                self._counter.refused += np.size(delivery.arrays.get("index", ()))
            self._warn(f"dropped a message: {error}")
            return [delivery.sequence]

    def _handle(self, delivery: Delivery) -> list[int]:
        match delivery.message:
            case self._start_type():
                self._handle_start(delivery.message)
                # after the end, it is an acquisition that was started again and sends everything again
                self.start, self.ended = delivery.message, False
                self._bounds.append(delivery.sequence)
            case Frames():
                self._enqueue(delivery.message, delivery)
            case PerspectiveEnd(perspective=index) if index in self._closed:
                self._drop(delivery.sequence)
            case PerspectiveEnd(perspective=index, angle_deg=angle_deg):
                section = self._section(index, angle_deg)
                section.ended = True
                self.hold(section, [delivery.sequence])
            case ScanEnd():
                self.ended = True
                self._bounds.append(delivery.sequence)
            case _:
                return self._handle_other(delivery)
        return []

    def _enqueue(self, message: Frames, delivery: Delivery) -> None:
        if self.start is None:
            raise MalformedMessage("frames came before the announcement of what they are")
        block = self._parse(delivery.arrays, self.start)
        if message.perspective in self._closed:
            self._counter.duplicates += len(block)
            self._drop(delivery.sequence)
            return
        section = self._section(message.perspective, message.angle_deg)
        if late := section.late(block.index):
            self._refuse_late(section, late)
            new = block.head(0)
        else:
            new = block.select(section.mark_received(block.index))
        self._counter.duplicates += len(block) - len(new) - late
        if not len(new):
            self._keep_repeated(delivery.sequence, section, block)
            return
        section.queued += len(new)
        self._queue.append(ReceivedBatch(delivery.sequence, section, message.acquired_at_s, left=len(new)), new)
        self.newest = new


def require_shape(what: str, shape: tuple[int, ...]) -> None:
    """Require that there is memory for one of what is announced.

    Raises:
        MalformedMessage: a side is not positive, or there are too many pixels.
    """
    if min(shape) < 1 or math.prod(shape) > MAX_PIXELS:
        raise MalformedMessage(f"{what} of {shape} px were announced")
