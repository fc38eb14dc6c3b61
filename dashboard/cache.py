"""What is dear is made once, however many viewers look at it, and one at a time: the run needs the processors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class Cache(Generic[ValueT]):
    """Keeps what was used last. Thread-safe.

    Args:
        entries: how many values are kept.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._lock = threading.Lock()
        self._made: OrderedDict[Hashable, ValueT] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], ValueT]) -> ValueT:
        """Return what was made for `key`, or make it now; waits while another value is made."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                while len(self._made) > self._entries:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]
