"""Frames that wait, and those put off because there are too many."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

from ptychoflow.inference_edge.frame_queue import FrameQueue, Portion
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.frame_spool import FrameSpool
from ptychoflow.inference_edge.ptychography.perspective import Perspective


class DeferringQueue(FrameQueue[Perspective, DiffractionBlock]):
    """Gives frames out in the order of their arrival, and those that were put off when no others wait.

    Args:
        spool_dir: where frames that are put off wait on disk.
    """

    def __init__(self, spool_dir: Path) -> None:
        super().__init__()
        self._put_off: deque[Portion[Perspective, DiffractionBlock]] = deque()
        self._spool = FrameSpool(spool_dir)

    @property
    def put_off(self) -> int:
        """Frames that wait on disk."""
        return self._spool.frames

    @property
    def frames(self) -> int:
        """All frames that wait."""
        return self.in_turn + self.put_off

    def next_batch(self, frames_max: int) -> list[Portion[Perspective, DiffractionBlock]]:
        """Return the next frames that wait in turn, `frames_max` at most, else those of one message put off."""
        if self.in_turn or not self._put_off:
            return super().next_batch(frames_max)
        return [replace(self._put_off.popleft(), block=self._spool.pop_oldest(), put_off=True)]

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
                self.append(portion.batch, portion.block.select(now))
            if not now.all():
                self._spool.append(portion.block.select(~now))
                self._put_off.append(replace(portion, block=portion.block.head(0)))
        return before - self.in_turn

    def close(self) -> None:
        """Let go of what is on disk."""
        self._spool.close()
