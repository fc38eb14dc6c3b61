"""The three classes that every live source brings: what drains it, what understands it, and what speaks like it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import Arrival, FramesCame
from ptychoflow.acquisition.detectors.message import Bytes, Run
from ptychoflow.acquisition.scan import Perspective

Part = Bytes
Deliver = Callable[[Sequence[Part]], None]
"""Takes one message: it is queued for the disk. The parts must not be changed afterwards. It returns at once, but for a
connection that `recalls`: there it waits while much is queued."""
POLL_S = 0.1
"""A connection looks at `stop` at least so often."""


class Connection(ABC):
    """Drains one source. Lives in a thread of the receiver process.

    A connection understands no more of a message than it needs for the next one: decoding is the decoder's. It connects
    again by itself, for ever, when its source is gone, and says so by `log`. Where the wire does not frame messages by
    itself (TCP), or objects come in place of bytes (EPICS), it makes parts that the decoder of the same folder reads.
    """

    @abstractmethod
    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver every message as it comes, until `stop` is set.

        Raises:
            UserError: the source can never work like this: an address that is none, a library that is not installed.
        """

    recalls: ClassVar[bool] = False
    """Whether `recall` is of use: what its source holds can be asked for again, and so can wait for a slow disk."""

    def recall(self, parts: Sequence[Part]) -> None:
        """Take in a message that was delivered earlier in this run, before `drain` is called; never raises.

        So a source that is made of files goes on where a receiver that was killed, or a run that is resumed, left off.
        """

    @staticmethod
    @abstractmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether this message begins a series, so that a new arrivals file is begun. Must be cheap; never raises."""


class Decoder(ABC):
    """Understands the messages of one source, in the order in which they came.

    It allocates nothing that a message asks for before it has checked it against the source's bounds, and keeps
    nothing that grows: a message may be damaged, may repeat, or may be missing.
    """

    @abstractmethod
    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says. Never raises for what a message holds: `Malformed` says what was wrong."""

    def decode_run(self, run: Run) -> Iterator[tuple[Arrival | FramesCame, float]]:
        """Yield what messages say that came one after the other, each with when it was received.

        Where decoders understand many messages at once, that is no more than `decode` makes of them one by one.
        """
        for message in run.messages():
            for arrival in self.decode(message.parts):
                yield arrival, message.received_at_s


class Simulator(ABC):
    """Speaks a source's protocol as the real thing does, so that any scan can be replayed as a detector.

    Used by one thread, in a process that knows nothing of the receiver; any thread may close it. Sockets are bound by
    the constructor; `begin` waits until somebody listens where the protocol needs that.
    """

    @abstractmethod
    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a series (from 1) with the frames of a perspective.

        Raises:
            InterruptedError: asked to stop while nobody listened.
        """

    @abstractmethod
    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Send what this source says of frame `index` (from 0): the frame (y, x), its position (y, x), or both.

        Raises:
            InterruptedError: closed while nobody took it.
        """

    @abstractmethod
    def end(self, *, aborted: bool) -> None:
        """End the series.

        Raises:
            InterruptedError: closed while nobody took what says so.
        """

    @abstractmethod
    def close(self) -> None:
        """Send what is left and close the sockets, from any thread; what waits for a listener waits no longer.

        May be called twice.
        """
