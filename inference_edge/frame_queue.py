"""Frames that are received and not yet imaged."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.frame_block import FrameBlock
from ptychoflow.inference_edge.section import Section

BlockT = TypeVar("BlockT", bound=FrameBlock)
SectionT = TypeVar("SectionT", bound=Section)


@dataclass(eq=False)
class ReceivedBatch(Generic[SectionT]):
    """A message of frames; it is done with when all of it is imaged."""

    sequence: int
    section: SectionT
    acquired_at_s: float
    left: int
    """Frames of it that are not imaged yet."""


@dataclass(frozen=True)
class Portion(Generic[SectionT, BlockT]):
    """Some frames of one message."""

    batch: ReceivedBatch[SectionT]
    block: BlockT
    put_off: bool = False
    """They were not imaged in turn."""


class FrameQueue(Generic[SectionT, BlockT]):
    """Gives frames out in the order of their arrival, in batches of one section."""

    def __init__(self) -> None:
        self.in_turn = 0
        """Frames that wait in memory."""
        self._portions: deque[Portion[SectionT, BlockT]] = deque()

    @property
    def frames(self) -> int:
        """All frames that wait."""
        return self.in_turn

    def append(self, batch: ReceivedBatch[SectionT], block: BlockT) -> None:
        """Append frames that have arrived."""
        self._portions.append(Portion(batch, block))
        self.in_turn += len(block)

    def next_batch(self, frames_max: int) -> list[Portion[SectionT, BlockT]]:
        """Remove and return the next frames, `frames_max` at most, all of one section; none if nothing waits.

        A message may be divided.
        """
        if not self._portions:
            return []
        portions: list[Portion[SectionT, BlockT]] = []
        section, room = self._portions[0].batch.section, frames_max
        while room and self._portions and self._portions[0].batch.section is section:
            portion = self._portions.popleft()
            if len(portion.block) > room:
                self._portions.appendleft(replace(portion, block=portion.block.tail(room)))
                portion = replace(portion, block=portion.block.head(room))
            room -= len(portion.block)
            portions.append(portion)
        self.in_turn -= frames_max - room
        return portions

    def close(self) -> None:
        """Let go of what is not in memory; the base class keeps nothing elsewhere."""


def finish_portions(portions: Sequence[Portion[SectionT, BlockT]], *, counter: EdgeCounter) -> list[int]:
    """Count frames as imaged now; return the messages of which all frames are."""
    finished: list[int] = []
    # hosts have the time of day in common, but it may be set
    time_of_day_s, now_s = time.time(), time.monotonic()
    for portion in portions:
        batch, frames = portion.batch, len(portion.block)
        batch.section.queued -= frames
        batch.left -= frames
        latency_s = time_of_day_s - batch.acquired_at_s
        counter.count_imaged(frames, latency_s=latency_s, now_s=now_s, in_turn=not portion.put_off)
        if not batch.left:
            finished.append(batch.sequence)
    return finished
