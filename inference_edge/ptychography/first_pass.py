"""Imaging every frame once, in the order of arrival."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.frame_queue import Portion, finish_portions
from ptychoflow.inference_edge.ptychography.deferring_queue import DeferringQueue
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.model import Model
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.ptychography.reconstructor import Reconstructor, SubmittedFrames


@dataclass(frozen=True)
class _Batch:
    """Frames of one perspective that the network is given."""

    portions: Sequence[Portion[Perspective, DiffractionBlock]]
    submitted: SubmittedFrames

    @property
    def perspective(self) -> Perspective:
        return self.portions[0].batch.section


class FirstPass:
    """Stitches what the network has predicted while the network has the next frames.

    Some frames are computed. Others are made ready beside them only if as many wait as may be imaged at once: fewer had
    better wait, since more at once take less time per frame.

    Args:
        queue: where frames wait.
        reconstructor: images them.
        counter: counts them.
        hold: told of the messages of a perspective whose frames are imaged.
        warn: tells the user.
    """

    def __init__(
        self,
        queue: DeferringQueue,
        reconstructor: Reconstructor,
        *,
        counter: EdgeCounter,
        hold: Callable[[Perspective, list[int]], None],
        warn: Callable[[str], None],
    ) -> None:
        self._queue, self._reconstructor = queue, reconstructor
        self._counter, self._hold, self._warn = counter, hold, warn
        self.under_way = 0
        """How many frames the network has that are not stitched yet."""
        self._submitted: deque[_Batch] = deque()
        self._stitching_frame_s = 0.0

    @property
    def can_advance(self) -> bool:
        """Whether `advance` has something to do, once there is a model."""
        return bool(self._submitted and self._submitted[0].submitted.done) or self._may_submit()

    @property
    def supplied(self) -> bool:
        """Whether the network is at work and has the next batch already: until it is done, it can take no more."""
        return len(self._submitted) > 1 and not self._submitted[0].submitted.done

    def advance(self, model: Model) -> Perspective | None:
        """Give the network what waits, as far as it can take more, and stitch a batch that it is done with.

        Returns:
            The perspective of that batch; None if the network is not done with any.
        """
        self._submit(model)
        if not self._submitted or not self._submitted[0].submitted.done:
            return None
        batch = self._submitted.popleft()
        self.under_way -= len(batch.submitted.block)
        self._reconstructor.record_time(batch.submitted, stitching_frame_s=self._stitching_frame_s)
        self._submit(model)
        began_s = time.perf_counter()
        self._stitch(batch)
        self._stitching_frame_s = (time.perf_counter() - began_s) / len(batch.submitted.block)
        return batch.perspective

    def _submit(self, model: Model) -> None:
        while self._may_submit():
            portions = self._queue.next_batch(self._reconstructor.sizer.frames_of(self._queue.in_turn))
            block = DiffractionBlock.join([portion.block for portion in portions])
            self.under_way += len(block)
            submitted = self._reconstructor.submit(model, block, portions[0].batch.section.illumination)
            self._submitted.append(_Batch(portions, submitted))

    def _may_submit(self) -> bool:
        if not self._submitted:
            return self._queue.frames > 0
        sizer = self._reconstructor.sizer
        return len(self._submitted) == 1 and sizer.measured and self._queue.in_turn >= sizer.frames

    def _stitch(self, batch: _Batch) -> None:
        perspective, frames = batch.perspective, len(batch.submitted.block)
        placed = self._reconstructor.place(batch.submitted)
        out_of_reach = perspective.stitch(placed.block, placed.patches, placed.version, placed.residuals)
        self._counter.unstitched += frames - len(placed.block) + out_of_reach
        if out_of_reach:
            self._warn(
                f"perspective {perspective.index}: {out_of_reach} frames were not stitched, their positions are far "
                "from all others; check the unit and scale of the positions in the source settings"
            )
        self._hold(perspective, finish_portions(batch.portions, counter=self._counter))
