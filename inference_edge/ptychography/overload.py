"""What is done while frames come faster than they can be imaged."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ptychoflow.inference_edge.ptychography.batch_sizer import BatchSizer
from ptychoflow.inference_edge.ptychography.deferring_queue import DeferringQueue
from ptychoflow.inference_edge.settings import EdgeSettings, Overload

log = logging.getLogger(__name__)


class OverloadWatch:
    """Follows the policy of the settings, tells when imaging falls behind, and counts what it puts off.

    Args:
        settings: of the edge.
        queue: frames that wait.
        warn: tells the user that frames are put off, and live images show part of the scan.
    """

    def __init__(self, settings: EdgeSettings, queue: DeferringQueue, *, warn: Callable[[str], None]) -> None:
        self.put_off = 0
        """Frames put off so far."""
        self._settings, self._queue, self._warn = settings, queue, warn
        self._behind = False

    def check(self, sizer: BatchSizer, *, under_way: int) -> None:
        """Act if imaging is behind; `under_way` frames are with the network before those that wait.

        Raises:
            UserError: frames cannot be put off to disk.
        """
        if not sizer.behind(self._queue.in_turn + under_way):
            if self._behind and not self._queue.put_off and self._queue.in_turn <= sizer.frames:
                self._behind = False
                log.info("imaging keeps up again")
            return
        if not self._behind:
            self._behind = True
            self._tell()
        if self._settings.overload is Overload.THIN:
            self.put_off += self._queue.put_off_all_but(self._settings.image_every)

    def _tell(self) -> None:
        reason = "frames come faster than they can be imaged"
        if self._settings.overload is Overload.THIN:
            every = self._settings.image_every
            self._warn(f"{reason}: one frame in {every} is imaged now, the others when there is time")
        else:
            log.info("%s: they wait, on the acquisition's disk if need be, and are imaged in order", reason)
