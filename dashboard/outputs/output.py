"""What every output is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ptychoflow.dashboard.outputs.news import News


class ConsumerAway(Exception):
    """Who should get something is not there, or does not answer; its text says so in words for a person."""


class Output(ABC):
    """Passes images and scores on to one consumer.

    Made in the main thread, which must not wait for the consumer; used and closed in a thread of its own.
    """

    name: ClassVar[str]
    """Of its section in `[outputs]`."""
    takes: ClassVar[tuple[type, ...]]
    """What it has a use for, of what news can be."""
    fell_behind: int = 0
    """How often one of several consumers was too slow, and missed something of what the others got."""
    rest_s: float = 0.0
    """Left between two deliveries, for a consumer that should not be written to all the time."""

    @abstractmethod
    def send(self, news: News) -> None:
        """Deliver news. May block.

        Raises:
            ConsumerAway: they could not be delivered; they, or something newer, will be tried again.
        """

    @abstractmethod
    def close(self) -> None:
        """End whatever is open. May block."""
