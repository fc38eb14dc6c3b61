"""One pass over a source, from its first frame to its last."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from ptychoflow.acquisition.publishing.journal import Journal
from ptychoflow.acquisition.publishing.loop import AcquisitionLoop, Stopped
from ptychoflow.acquisition.publishing.pacing import Pacer
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.events import PartState, PartStatus
from ptychoflow.streaming.messages import StreamStart

log = logging.getLogger(__name__)


class SourceStreamer(ABC):
    """Streams a source once.

    A run that is resumed passes over everything again: receivers drop what they are done with, and what was acquired
    before comes without pacing.

    Args:
        settings: how the source is published.
        loop: sends the stream.
        journal: keeps what need not be done again.
    """

    ACQUIRED: ClassVar[str]
    """What happens to what, in a few words."""

    def __init__(self, settings: PublishingSettings, *, loop: AcquisitionLoop, journal: Journal) -> None:
        self._loop, self._journal = loop, journal
        self._publisher, self._ledger = loop.publisher, loop.ledger
        self._pacer = Pacer(settings.rate_hz)

    def run_to_end(self) -> bool:
        """Stream everything and wait until every receiver has finished with it, or until the run is stopped.

        Return whether it came to its end.

        Raises:
            UserError: the source cannot be read.
        """
        stopped = False
        try:
            self._stream_all()
            self._loop.end_stream()
        except Stopped:
            stopped = True
            self._ledger.count_rest_unlabelled()
            log.info("asked to stop: %d %s", self._ledger.acquired, self.ACQUIRED)
        self._loop.send_counts(final=True)
        self._loop.send(PartStatus(PartState.DONE, f"{self._ledger.acquired} {self.ACQUIRED}", stopped))
        return not stopped

    @abstractmethod
    def _stream_all(self) -> None:
        """Announce the source, and stream all of it but its end."""

    def _post_start(self, start: StreamStart) -> None:
        self._publisher.post_to_edge(start)
        self._publisher.post_to_ranks(start)

    def _wait_for_turn(self, frames: int, *, again: bool) -> None:
        """Wait until so many more frames are due; those acquired `again` always are."""
        self._loop.wait_for_turn(0.0 if again else self._pacer.wait_s(frames))

    def _record(self, write: Callable[[], None]) -> None:
        """Write to the journal; where the disk does not take it, only a resumed run is worse off."""
        try:
            write()
        except OSError as error:
            self._loop.warn(f"a resumed run would have to do this again, because it cannot be noted: {error}")
