"""The stream of samples as the loop sees it; where they come from is the pipeline's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ptychoflow.trainer.interface.pipeline import Minibatch


@dataclass(frozen=True)
class SectionEnd:
    """All samples of a section have been served: of a perspective, a task, or an epoch."""

    number: int


@dataclass(frozen=True)
class StreamEnd:
    """All samples have been served."""


class Stream(ABC):
    """This rank's samples, in the order in which they are to be learnt."""

    @abstractmethod
    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return `size` samples, or fewer only if they are the last before an end.

        The minibatch before has been marked as trained on. Blocks up to `timeout_s`; None if too few have
        come by then, or if an end is at the front.
        """

    @property
    @abstractmethod
    def end(self) -> SectionEnd | StreamEnd | None:
        """The end at the front, or None while samples come before it or nothing waits."""

    @abstractmethod
    def begin_next_section(self) -> None:
        """Pass the end of a section at the front."""

    def check(self) -> None:
        """Raise what keeps samples from coming, if anything does."""

    def mark_trained(self) -> None:
        """Note that the samples of the last minibatch were trained on."""

    def mark_refused(self, reason: str, samples: int) -> None:
        """Note that so many samples were not learnt that were marked as trained on; they are not made up for."""
