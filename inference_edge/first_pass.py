"""Imaging every frame once, in the order of arrival."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ptychoflow.inference_edge.arrivals import Arrivals
from ptychoflow.inference_edge.frame_block import join
from ptychoflow.inference_edge.imaging import Begun, Imaging
from ptychoflow.inference_edge.perspective import Perspective
from ptychoflow.inference_edge.reporting import EdgeCounter
from ptychoflow.inference_edge.waiting import Portion
from ptychoflow.inference_edge.weights import Model


@dataclass(frozen=True)
class _Batch:
    """Frames of one perspective that the network is given."""

    portions: list[Portion]
    begun: Begun

    @property
    def perspective(self) -> Perspective:
        return self.portions[0].arrival.perspective


class FirstPass:
    """Stitches what the network has predicted while the network has the next frames.

    One batch is computed. Another is made ready beside it only if as many frames wait as a batch may have: fewer had
    better wait, since a larger batch takes less time per frame.

    Args:
        arrivals: hold the frames; told what is done with.
        imaging: images them.
        counter: counts them.
        warn: tells the user.
    """

    def __init__(
        self, arrivals: Arrivals, imaging: Imaging, *, counter: EdgeCounter, warn: Callable[[str], None]
    ) -> None:
        self._arrivals, self._imaging = arrivals, imaging
        self._counter, self._warn = counter, warn
        self._begun: deque[_Batch] = deque()
        self._stitching_frame_s = 0.0

    @property
    def under_way(self) -> int:
        """How many frames the network has that are not stitched yet."""
        return sum(len(batch.begun.block) for batch in self._begun)

    @property
    def can_advance(self) -> bool:
        """Whether `advance` has something to do, once there is a model."""
        return bool(self._begun and self._begun[0].begun.done) or self._may_begin()

    def advance(self, model: Model) -> Perspective | None:
        """Give the network what waits, as far as it can take more, and stitch a batch that it is done with.

        Returns:
            The perspective of that batch; None if the network is not done with any.
        """
        self._begin(model)
        if not self._begun or not self._begun[0].begun.done:
            return None
        batch = self._begun.popleft()
        self._imaging.learn(batch.begun, stitching_frame_s=self._stitching_frame_s)
        self._begin(model)
        began_s = time.perf_counter()
        self._stitch(batch)
        self._stitching_frame_s = (time.perf_counter() - began_s) / len(batch.begun.block)
        return batch.perspective

    def _begin(self, model: Model) -> None:
        while self._may_begin():
            portions = self._arrivals.waiting.take(self._imaging.sizer.frames)
            block = join([portion.block for portion in portions])
            self._begun.append(_Batch(portions, self._imaging.begin(model, block)))

    def _may_begin(self) -> bool:
        waiting = self._arrivals.waiting
        if not self._begun:
            return bool(waiting.in_turn or waiting.put_off)
        sizer = self._imaging.sizer
        return len(self._begun) == 1 and sizer.measured and waiting.in_turn >= sizer.frames

    def _stitch(self, batch: _Batch) -> None:
        perspective, frames = batch.perspective, len(batch.begun.block)
        imaged = self._imaging.finish(batch.begun)
        out_of_reach = perspective.add(imaged.block, imaged.patches, imaged.version)
        self._counter.unstitched += frames - len(imaged.block) + out_of_reach
        if out_of_reach:
            self._warn(
                f"perspective {perspective.index}: {out_of_reach} frames were not stitched, their positions are far "
                "from all others; check the unit and scale of the positions in the source settings"
            )
        self._arrivals.hold(perspective, self._count(batch))

    def _count(self, batch: _Batch) -> list[int]:
        """Count the frames of a batch as imaged; return the messages of which all frames are."""
        now_s = time.time()
        finished: list[int] = []
        for portion in batch.portions:
            arrival, frames = portion.arrival, len(portion.block)
            arrival.perspective.queued -= frames
            arrival.left -= frames
            self._counter.imaged(frames, acquired_at_s=arrival.acquired_at_s, now_s=now_s, in_turn=not portion.put_off)
            if not arrival.left:
                finished.append(arrival.sequence)
        return finished
