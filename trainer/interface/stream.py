"""The stream of samples as the loop sees it; where they come from is the pipeline's matter."""

from __future__ import annotations

from typing import Protocol

from ptychoflow.streaming.messages import PerspectiveEnd, ScanEnd
from ptychoflow.trainer.interface.pipeline import Minibatch

Marker = PerspectiveEnd | ScanEnd
"""The end of a section of the stream, which is a perspective, or an epoch of images; or of all of it."""


class Stream(Protocol):
    """This rank's samples, in the order in which they are to be learnt."""

    def check(self) -> None:
        """Raise what keeps samples from coming, if anything does."""

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return `size` samples, or fewer only if they are the last before a marker.

        Blocks up to `timeout_s`; None if too few have come by then, or if a marker is at the front.
        """

    @property
    def marker(self) -> Marker | None:
        """The marker at the front, or None while samples come before it or nothing waits."""

    def pass_marker(self) -> None:
        """Remove the marker at the front."""

    def trained(self, samples: int) -> None:
        """Count the next `samples` samples as trained on."""

    def reject(self, samples: int, *, reason: str) -> None:
        """Count the next `samples` samples as refused."""
