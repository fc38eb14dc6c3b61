"""What the trainer can begin with while the first ground truth is still being computed: frames, and what lit them."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.scan import OpenEndedPerspective
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.frame_memory import frames_within
from ptychoflow.streaming.messages import FrameRole, Probe, UnlabelledFrames
from ptychoflow.streaming.publisher import Publisher

log = logging.getLogger(__name__)

HEAD_START_BYTES = 1 << 27
"""Of frames that are sent for it at most: the trainer keeps them in memory."""

FEWEST_FRAMES = 16
"""Where fewer are within that, none are sent."""


class HeadStart:
    """Sends rank 0 the first frames of a scan whose probe is known, until there is ground truth.

    Frames that validate or are held out are not among them.

    Args:
        publisher: sends them.
        frames: so many at most; none with 0.
    """

    def __init__(self, publisher: Publisher, *, frames: int) -> None:
        self._publisher, self._left = publisher, frames
        self._perspective: int | None = None
        """The one whose frames come now, if its probe is known."""

    def begin(self, perspective: OpenEndedPerspective) -> None:
        """Send the probe of a perspective before its frames."""
        self._perspective = None
        if self._left == 0 or perspective.probe is None:
            return
        shape_px = perspective.geometry.frame_shape_px
        within = frames_within(HEAD_START_BYTES, shape_px, np.dtype(np.float32).itemsize)
        self._left = min(self._left, within) if within >= FEWEST_FRAMES else 0
        if self._left == 0:
            return
        log.info("perspective %d: up to %d frames for the trainer's head start", perspective.index, self._left)
        self._perspective = perspective.index
        self._publisher.post_to_first_rank(*probe_message(perspective, perspective.probe))

    def send(self, arrays: Arrays) -> None:
        """Send what may be learnt from of the arrays of a `Frames` message."""
        if self._left == 0 or self._perspective is None:
            return
        rows = np.flatnonzero(arrays["role"] == FrameRole.TRAIN)[: self._left]
        if len(rows):
            self._left -= len(rows)
            chosen = {name: arrays[name][rows] for name in ("position_px", "diffraction")}
            self._publisher.post_to_first_rank(UnlabelledFrames(self._perspective), chosen)

    def end(self) -> None:
        """Send no more: there is ground truth."""
        self._left = 0


def probe_message(perspective: OpenEndedPerspective, probe: npt.NDArray[np.complexfloating]) -> tuple[Probe, Arrays]:
    """Return the message that tells what lights the object, with its arrays."""
    arrays: Arrays = {"probe": probe}
    if perspective.mask is not None:
        arrays["mask"] = perspective.mask
    return Probe(perspective.index, perspective.angle_deg), arrays
