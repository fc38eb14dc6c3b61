"""Keeps the stream going while the acquisition waits for anything."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from ptychoflow.acquisition.publishing.claim import claimed_spool
from ptychoflow.acquisition.publishing.control import Control
from ptychoflow.acquisition.publishing.ledger import Ledger
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.commands import CommandReceiver
from ptychoflow.streaming.events import AnyEvent, Part, PartState, PartStatus, WarningRaised
from ptychoflow.streaming.messages import ScanEnd
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetrySender

log = logging.getLogger(__name__)

STREAM = "stream"
"""In the run's spool: messages that memory does not hold."""
IDLE_S = 0.02
COUNTS_PERIOD_S = 0.5


class Stopped(Exception):
    """The run was asked to end."""


class AcquisitionLoop:
    """Sends what is posted, hears commands and reports counts; every wait of an acquisition goes through it.

    Every method that waits raises `Stopped` soon after `stop` is set.

    Args:
        publisher: sends the stream.
        telemetry: where events go.
        control: what people ask for.
        stop: ends every wait.
    """

    def __init__(
        self, publisher: Publisher, *, telemetry: TelemetrySender, control: Control, stop: threading.Event
    ) -> None:
        self.publisher, self.telemetry, self.control = publisher, telemetry, control
        self.ledger = Ledger()
        """Reported now and then."""
        self.attendants: list[Callable[[], object]] = []
        """Called again and again while the loop runs, for what else must not wait."""
        self._stop = stop
        self._activity = ""
        self._counts_due_s = 0.0

    def run_for(self, seconds: float) -> None:
        """Work for at least this long, and at least once."""
        deadline_s = time.monotonic() + seconds
        while True:
            self.control.poll()
            remaining_s = deadline_s - time.monotonic()
            self.publisher.pump(min(max(remaining_s, 0.0), IDLE_S))
            for attend in self.attendants:
                attend()
            if time.monotonic() >= self._counts_due_s:
                self.send_counts()
            if self._stop.is_set():
                raise Stopped
            if remaining_s <= 0.0:
                return

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Work until the condition holds."""
        while not condition():
            self.run_for(IDLE_S)

    def wait_for_turn(self, seconds: float) -> None:
        """Work until the next frames may be acquired: after `seconds`, with no pause asked for and room for them."""
        self.run_for(seconds)
        self._wait_while_paused()
        self._wait_for_room()

    def end_stream(self) -> None:
        """Close the stream, then stay until every receiver has finished with it."""
        end = ScanEnd(self.ledger.acquired)
        self.publisher.post_to_edge(end)
        self.publisher.post_to_ranks(end)
        log.info("the scan is over: %d frames; waiting for the receivers", self.ledger.acquired)
        self.begin("the scan is over; waiting for the receivers")
        self.run_until(lambda: not self.publisher.unacknowledged)

    def send_counts(self, *, final: bool = False) -> None:
        """Report the ledger, for the last time if it is `final`."""
        self._counts_due_s = time.monotonic() + COUNTS_PERIOD_S
        resent, spooled_bytes = self.publisher.resent, self.publisher.spool.written_bytes
        self.send(self.ledger.event(resent_batches=resent, spooled_bytes=spooled_bytes, final=final))

    def warn(self, text: str) -> None:
        """Say something that a user should know before trusting the result."""
        log.warning("%s", text)
        self.send(WarningRaised(text))

    def begin(self, activity: str) -> None:
        """Say what the acquisition does from now on, in a few words."""
        self._activity = activity
        self.send(PartStatus(PartState.RUNNING, activity))

    def send(self, event: AnyEvent) -> None:
        """Send an event."""
        self.telemetry.send(event)

    def _wait_while_paused(self) -> None:
        """Acquire nothing while people asked for a pause; what was acquired before goes on."""
        if not self.control.paused:
            return
        log.info("paused after %d frames", self.ledger.acquired)
        self.send(PartStatus(PartState.PAUSED, "paused by a command"))
        self.run_until(lambda: not self.control.paused)
        log.info("resumed")
        self.begin(self._activity)

    def _wait_for_room(self) -> None:
        """Hold the acquisition while neither memory nor disk takes more."""
        spool = self.publisher.spool
        if spool.full:
            self.warn(f"acquisition waits: the spool is full ({spool.disk_error})")
        self.run_until(lambda: not spool.full)


@contextmanager
def open_loop(
    settings: PublishingSettings, *, network: NetworkSettings, run: RunContext, stop: threading.Event
) -> Iterator[AcquisitionLoop]:
    """Claim the run's spool and open an acquisition's sockets within the context, and say that it is starting.

    Raises:
        UserError: another acquisition runs in the folder, a port is in use, or keys are missing.
    """
    spool_dir = run.folder.spool / STREAM
    with ExitStack() as stack:
        stack.enter_context(claimed_spool(run.folder.spool))
        shutil.rmtree(spool_dir, ignore_errors=True)
        telemetry = stack.enter_context(closing(TelemetrySender(network, part=Part.ACQUISITION)))
        telemetry.send(PartStatus(PartState.STARTING))
        publisher = Publisher(
            network,
            spool_dir=spool_dir,
            memory_bytes=settings.spool_memory_bytes,
            edge=settings.edge,
            trainer=settings.trainer,
            warn=lambda text: telemetry.send(WarningRaised(text)),
        )
        stack.callback(publisher.close, linger_s=1.0)
        control = Control(stack.enter_context(closing(CommandReceiver(network))))
        yield AcquisitionLoop(publisher, telemetry=telemetry, control=control, stop=stop)
