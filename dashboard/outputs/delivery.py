"""One output at work: a mailbox, and the thread that empties it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ptychoflow.dashboard.outputs.mailbox import Mailbox
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import ConsumerAway, Output
from ptychoflow.dashboard.watched_thread import WatchedThread

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Before a consumer that is away is tried again."""


class Delivery(WatchedThread):
    """Delivers news to one output; a consumer that is away is tried again, with growing pauses.

    Args:
        output: closed by the thread.
        warn: told once that the consumer is away.
        mailbox: where news wait.
    """

    def __init__(self, output: Output, *, warn: Callable[[str], None], mailbox: Mailbox | None = None) -> None:
        super().__init__(f"output-{output.name}")
        self.sent = 0
        """News that were delivered."""
        self._output, self._warn = output, warn
        self._mailbox = Mailbox() if mailbox is None else mailbox
        self._under_way = 0
        self._away = self._warned = False
        self._pause_s = FIRST_PAUSE_S
        self._stop = threading.Event()
        self._thread.start()

    @property
    def name(self) -> str:
        """Of the output."""
        return self._output.name

    @property
    def lost(self) -> int:
        """News that a consumer should have got and did not, and times that one of several fell behind."""
        return self.dropped + self.undelivered + self._output.fell_behind

    @property
    def dropped(self) -> int:
        """News that were let go of because too much waited."""
        return self._mailbox.dropped

    @property
    def overtaken(self) -> int:
        """News that something newer has taken the place of."""
        return self._mailbox.overtaken

    @property
    def undelivered(self) -> int:
        """News that still wait, the one that is being delivered included."""
        return len(self._mailbox) + self._under_way

    def put(self, news: News) -> None:
        """Take in news that the output has a use for; never waits."""
        if isinstance(news.what, self._output.takes):
            self._mailbox.put(news)

    def stop(self) -> None:
        """Let the thread end when everything is delivered, or when the consumer does not take it. Does not wait."""
        self._stop.set()
        self._mailbox.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread after `stop`; return whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def describe(self) -> str:
        """Say what became of everything that the output was told."""
        said = [f"{self.name}: {self.sent} delivered", f"{self.overtaken} overtaken by newer ones"]
        if self.dropped:
            said.append(f"{self.dropped} dropped, as too many waited")
        if self._output.fell_behind:
            said.append(f"{self._output.fell_behind} times a consumer fell behind and missed some")
        if self.undelivered:
            said.append(f"{self.undelivered} undelivered")
        return ", ".join(said)

    def _run(self) -> None:
        try:
            while (news := self._mailbox.take()) is not None:
                self._under_way = 1
                delivered = self._deliver(news)
                if not delivered:
                    self._mailbox.put_back(news)
                self._under_way = 0
                if not delivered and self._stop.is_set():
                    break
                self._stop.wait(self._output.rest_s if delivered else self._grown_pause_s())
        finally:
            self._output.close()

    def _deliver(self, news: News) -> bool:
        try:
            self._output.send(news)
        except ConsumerAway as error:
            self._note_away(str(error))
            return False
        self.sent += 1
        self._pause_s = FIRST_PAUSE_S
        if self._away:
            self._away = False
            log.info("output %s: delivered again", self.name)
        return True

    def _note_away(self, why: str) -> None:
        if not self._away:
            self._away = True
            log.warning("output %s: %s; tried again until it works", self.name, why)
        if not self._warned:
            self._warned = True
            self._warn(f"output {self.name}: {why}; tried again until it works, with the newest images and scores")

    def _grown_pause_s(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s
