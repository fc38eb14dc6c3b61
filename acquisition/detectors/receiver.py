"""The acquisition's side of its receiver: starts it, starts it again when it is gone, and says how it stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ptychoflow.acquisition.detectors.receiver_messages import ReceiverAnswer, ReceiverFailed, ReceiverJob
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.streaming.child import Child, ChildEnded
from ptychoflow.streaming.errors import UserError

MODULE = "ptychoflow.acquisition.detectors.receiver_process"
AGAIN_AFTER_S = 1.0


class Receiver:
    """Receives into the arrivals files of a folder, in a process of its own, until it is closed.

    Args:
        settings: which sources.
        folder: made if need be.
        warn: told when the receiver was gone, and when the disk takes nothing.
    """

    def __init__(self, settings: LiveSettings, folder: Path, *, warn: Callable[[str], None]) -> None:
        self._arguments = [msgspec.json.encode(ReceiverJob.of(settings, folder)).decode()]
        self._warn = warn
        self._trouble = ""
        self._written_until_s: float | None = None
        self._clock_ahead_s: float | None = None
        self._again_at_s = 0.0
        self._child: Child | None = Child(MODULE, self._arguments, threads=1)

    @property
    def pid(self) -> int | None:
        """Process id of the receiver, None while there is none."""
        return None if self._child is None else self._child.pid

    def attend(self) -> float | None:
        """See to it that there is a receiver; return the time until which all that came is in the arrivals files.

        None while none listens; the arrivals say since when. Does not block.

        Raises:
            UserError: a source can never be received like this.
        """
        if self._child is None:
            if time.monotonic() >= self._again_at_s:
                self._child = Child(MODULE, self._arguments, threads=1)
            return None
        try:
            while (line := self._child.receive(0.0)) is not None:
                self._hear(msgspec.json.decode(line, type=ReceiverAnswer))
        except ChildEnded as end:
            self._child.close()
            self._child, self._written_until_s = None, None
            self._again_at_s = time.monotonic() + AGAIN_AFTER_S
            self._warn(f"the receiver is gone ({end}); it is started again, and what comes meanwhile is missing")
        return self._written_until_s

    def time_of_day_s(self, at_s: float) -> float:
        """Return what `time.time()` would have been at a time by the receiver's clock, as the host's is set now.

        The receiver's stays as it was when it began, but for what its process stood still: nothing is given up because
        a clock is set, or because nobody listened. What came before it stood still seems later by as much.
        """
        if self._clock_ahead_s is None:
            return at_s
        return at_s - self._clock_ahead_s + time.time() - time.monotonic()

    def close(self) -> None:
        """End the receiver; what it has received is written first."""
        if self._child is not None:
            self._child.close()

    def _hear(self, answer: ReceiverAnswer) -> None:
        if isinstance(answer, ReceiverFailed):
            raise UserError(answer.reason)
        self._written_until_s, self._clock_ahead_s = answer.written_until_s, answer.clock_ahead_s
        if answer.trouble and answer.trouble != self._trouble:
            self._warn(
                f"what the detector sends cannot be written ({answer.trouble}): it waits in memory, up to "
                "source.queue_bytes, and what comes then is lost; make space"
            )
        self._trouble = answer.trouble
