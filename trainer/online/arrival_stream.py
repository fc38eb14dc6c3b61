"""What arrives of a running scan or data set as a stream of samples; its sections are perspectives or tasks."""

from __future__ import annotations

from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.interface.stream import Marker
from ptychoflow.trainer.online.ingest import Arrivals


class ArrivalStream:
    """Serves the samples that have arrived on this rank; a `ptychoflow.trainer.interface.stream.Stream`."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals, self._queue = arrivals, arrivals.queue

    def check(self) -> None:
        """Raise what ended the receiving thread, if anything did."""
        self._arrivals.check()

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return `size` samples, or fewer only if they are the last before a marker; None if too few have arrived."""
        return self._queue.next_minibatch(size, timeout_s=timeout_s)

    @property
    def marker(self) -> Marker | None:
        """The marker at the front of the queue."""
        return self._queue.marker

    def pass_marker(self) -> None:
        """Remove the end of a perspective from the front of the queue."""
        self._arrivals.pass_perspective()

    def trained(self, samples: int) -> None:
        """Count the next `samples` samples as trained on."""
        self._arrivals.trained(samples)

    def reject(self, samples: int, *, reason: str) -> None:
        """Count the next `samples` samples as refused."""
        self._arrivals.reject(samples, reason=reason)
