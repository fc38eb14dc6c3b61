"""Keeps the stream going while a pass over a source waits for anything."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ptychoflow.acquisition.control import Control
from ptychoflow.acquisition.ledger import Ledger
from ptychoflow.streaming.events import AnyEvent, PartState, PartStatus, WarningRaised
from ptychoflow.streaming.messages import ScanEnd
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.telemetry import TelemetrySender

log = logging.getLogger(__name__)

IDLE_S = 0.02
COUNTS_PERIOD_S = 0.5


class Stopped(Exception):
    """The run was asked to end."""


class Pump:
    """Pumps the publisher, heeds commands and reports counts; every wait of a pass goes through it.

    Every method that waits raises `Stopped` soon after `stop` is set.

    Args:
        publisher: sends the stream.
        telemetry: where events go.
        control: what people ask for.
        ledger: reported now and then.
        stop: ends every wait.
        attend: called again and again meanwhile, for what else must not wait.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        telemetry: TelemetrySender,
        control: Control,
        ledger: Ledger,
        stop: threading.Event,
        attend: Callable[[], None] | None = None,
    ) -> None:
        self._publisher, self._telemetry, self._control = publisher, telemetry, control
        self._ledger, self._stop, self._attend = ledger, stop, attend
        self._counts_due_s = 0.0

    def work_for(self, seconds: float) -> None:
        """Work for at least this long, and at least once."""
        deadline_s = time.monotonic() + seconds
        while True:
            self._control.poll()
            remaining_s = deadline_s - time.monotonic()
            self._publisher.pump(min(max(remaining_s, 0.0), IDLE_S))
            if self._attend is not None:
                self._attend()
            if time.monotonic() >= self._counts_due_s:
                self.send_counts()
            if self._stop.is_set():
                raise Stopped
            if remaining_s <= 0.0:
                return

    def work_until(self, condition: Callable[[], bool]) -> None:
        """Work until the condition holds."""
        while not condition():
            self.work_for(IDLE_S)

    def wait_while_paused(self) -> None:
        """Acquire nothing while people asked for a pause; what was acquired before goes on."""
        if not self._control.paused:
            return
        log.info("paused after %d frames", self._ledger.acquired)
        self.send(PartStatus(PartState.PAUSED, "paused by a command"))
        self.work_until(lambda: not self._control.paused)
        log.info("resumed")
        self.send(PartStatus(PartState.RUNNING, "scanning"))

    def wait_for_room(self) -> None:
        """Hold the acquisition while neither memory nor disk takes more."""
        spool = self._publisher.spool
        if spool.full:
            self.warn(f"acquisition waits: the spool is full ({spool.disk_error})")
        self.work_until(lambda: not spool.full)

    def end_stream(self) -> None:
        """Close the stream, then stay until every receiver has finished with it."""
        end = ScanEnd(self._ledger.acquired)
        self._publisher.post_to_edge(end)
        self._publisher.post_to_ranks(end)
        log.info("the scan is over: %d frames; waiting for the receivers", self._ledger.acquired)
        self.send(PartStatus(PartState.RUNNING, "the scan is over; waiting for the receivers"))
        self.work_until(lambda: not self._publisher.unacknowledged)

    def send_counts(self) -> None:
        """Report the ledger."""
        self._counts_due_s = time.monotonic() + COUNTS_PERIOD_S
        publisher = self._publisher
        self.send(self._ledger.event(resent_batches=publisher.resent, spooled_bytes=publisher.spool.written_bytes))

    def warn(self, text: str) -> None:
        """Say something that a user should know before trusting the result."""
        log.warning("%s", text)
        self.send(WarningRaised(text))

    def send(self, event: AnyEvent) -> None:
        """Send an event."""
        self._telemetry.send(event)
