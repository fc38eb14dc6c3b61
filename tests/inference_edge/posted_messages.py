"""Messages as they reach the edge, without a network; for tests of what it does with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.inbox import Delivery
from ptychoflow.streaming.messages import DataMessage


class Messages:
    """In place of an inbox: what is to come, and what was said about it."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self._coming: deque[Delivery] = deque()
        self._posted = 0

    def post(self, message: DataMessage, arrays: Arrays | None = None) -> int:
        self._coming.append(Delivery(self._posted, message, arrays or {}))
        self._posted += 1
        return self._posted - 1

    def receive(self, timeout_s: float) -> Delivery | None:
        return self._coming.popleft() if self._coming else None

    def acknowledge(self, sequences: Iterable[int]) -> None:
        self.acknowledged += sequences

    def hold(self, sequences: Iterable[int]) -> None:
        pass
