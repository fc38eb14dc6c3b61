"""What waits for one output: the newest of everything, within bounds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from ptychoflow.dashboard.outputs.news import News

MAX_NEWS = 64
MAX_BYTES = 256 << 20


class Mailbox:
    """Takes news in without ever waiting, and gives them out in order. Thread-safe.

    What is newer takes the place of what waits under the same key. A mailbox that is full lets the oldest go.

    Args:
        max_news: that wait at most.
        max_bytes: that they take at most; a single one may be larger.
    """

    def __init__(self, *, max_news: int = MAX_NEWS, max_bytes: int = MAX_BYTES) -> None:
        self.overtaken = 0
        """News that something newer has taken the place of."""
        self.dropped = 0
        """News that were let go of because too much waited."""
        self._max_news, self._max_bytes = max_news, max_bytes
        self._waiting: OrderedDict[Hashable, News] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """Return how many news wait."""
        return len(self._waiting)

    def put(self, news: News) -> None:
        """Take in news; never waits."""
        with self._changed:
            self.overtaken += news.key in self._waiting
            self._waiting[news.key] = news
            self._let_go()
            self._changed.notify()

    def put_back(self, news: News) -> None:
        """Take back what could not be delivered, as the oldest, unless something newer waits in its place."""
        with self._changed:
            if news.key in self._waiting:
                self.overtaken += 1
                return
            self._waiting[news.key] = news
            self._waiting.move_to_end(news.key, last=False)
            self._let_go()

    def take(self) -> News | None:
        """Return the oldest news; waits for some. None when the mailbox is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popitem(last=False)[1] if self._waiting else None

    def close(self) -> None:
        """Let nobody wait any more; what is in it can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _let_go(self) -> None:
        while len(self._waiting) > 1 and self._too_much():
            self._waiting.popitem(last=False)
            self.dropped += 1

    def _too_much(self) -> bool:
        nbytes = sum(news.nbytes for news in self._waiting.values())
        return len(self._waiting) > self._max_news or nbytes > self._max_bytes
