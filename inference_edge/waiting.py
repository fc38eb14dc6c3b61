"""Frames that are received and not yet imaged, and those put off because there are too many."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from ptychoflow.inference_edge.frame_block import FrameBlock
from ptychoflow.inference_edge.frame_spool import FrameSpool
from ptychoflow.inference_edge.perspective import Perspective


@dataclass(eq=False)
class Arrival:
    """A batch of frames as it was received; acknowledged when all of it is imaged."""

    sequence: int
    perspective: Perspective
    acquired_at_s: float
    left: int
    """Frames of it that are not imaged yet."""


@dataclass(frozen=True)
class Portion:
    """Some frames of one arrival."""

    arrival: Arrival
    block: FrameBlock
    put_off: bool = False
    """They were not imaged in turn."""


class WaitingFrames:
    """Gives frames out in the order of their arrival, in batches of one perspective.

    Args:
        spool_dir: where frames that are put off wait on disk.
    """

    def __init__(self, spool_dir: Path) -> None:
        self.in_turn = 0
        """Frames that wait in memory."""
        self._portions: deque[Portion] = deque()
        self._put_off: deque[Portion] = deque()
        self._spool = FrameSpool(spool_dir)

    @property
    def put_off(self) -> int:
        """Frames that wait on disk."""
        return self._spool.frames

    def add(self, arrival: Arrival, block: FrameBlock) -> None:
        """Append frames that have arrived."""
        self._portions.append(Portion(arrival, block))
        self.in_turn += len(block)

    def take(self, frames_max: int) -> list[Portion]:
        """Return the next frames, `frames_max` at most: those that wait in turn, else those that were put off.

        All are of one perspective, and none or all were put off. A batch may be divided.
        """
        if self._portions:
            return self._take_in_turn(frames_max)
        return [replace(self._put_off.popleft(), block=self._spool.get(), put_off=True)] if self._put_off else []

    def put_off_all_but(self, every: int) -> int:
        """Put off all waiting frames whose index is not a multiple of `every`; return how many.

        Raises:
            UserError: they cannot be written to disk.
        """
        before = self.in_turn
        portions, self._portions, self.in_turn = self._portions, deque(), 0
        for portion in portions:
            now = portion.block.index % every == 0
            if now.any():
                self.add(portion.arrival, portion.block.select(now))
            if not now.all():
                self._spool.put(portion.block.select(~now))
                self._put_off.append(replace(portion, block=portion.block.head(0)))
        return before - self.in_turn

    def close(self) -> None:
        """Let go of what is on disk."""
        self._spool.close()

    def _take_in_turn(self, frames_max: int) -> list[Portion]:
        taken: list[Portion] = []
        perspective, room = self._portions[0].arrival.perspective, frames_max
        while room and self._portions and self._portions[0].arrival.perspective is perspective:
            portion = self._portions.popleft()
            if len(portion.block) > room:
                self._portions.appendleft(replace(portion, block=portion.block.tail(room)))
                portion = replace(portion, block=portion.block.head(room))
            room -= len(portion.block)
            taken.append(portion)
        self.in_turn -= frames_max - room
        return taken
