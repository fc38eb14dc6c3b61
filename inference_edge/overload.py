"""What is done while frames come faster than they can be imaged."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ptychoflow.inference_edge.batching import BatchSizer
from ptychoflow.inference_edge.settings import EdgeSettings, Overload
from ptychoflow.inference_edge.waiting import WaitingFrames

log = logging.getLogger(__name__)


class OverloadWatch:
    """Follows the policy of the settings, tells when imaging falls behind, and counts what it puts off.

    Args:
        settings: of the edge.
        waiting: frames that wait.
        warn: tells the user that frames are put off, and live images show part of the scan.
    """

    def __init__(self, settings: EdgeSettings, waiting: WaitingFrames, *, warn: Callable[[str], None]) -> None:
        self.put_off = 0
        """Frames put off so far."""
        self._settings, self._waiting, self._warn = settings, waiting, warn
        self._behind = False

    def watch(self, sizer: BatchSizer, *, under_way: int) -> None:
        """Act if imaging is behind; `under_way` frames are with the network before those that wait.

        Raises:
            UserError: frames cannot be put off to disk.
        """
        if not sizer.behind(self._waiting.in_turn + under_way):
            if self._behind and not self._waiting.put_off and self._waiting.in_turn <= sizer.frames:
                self._behind = False
                log.info("imaging keeps up again")
            return
        if not self._behind:
            self._behind = True
            self._tell()
        if self._settings.overload is Overload.THIN:
            self.put_off += self._waiting.put_off_all_but(self._settings.image_every)

    def _tell(self) -> None:
        reason = "frames come faster than they can be imaged"
        if self._settings.overload is Overload.THIN:
            every = self._settings.image_every
            self._warn(f"{reason}: one frame in {every} is imaged now, the others when there is time")
        else:
            log.info("%s: they wait, on the acquisition's disk if need be, and are imaged in order", reason)
