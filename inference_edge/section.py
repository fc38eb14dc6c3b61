"""A perspective of a scan, or a task of images, while something of it can still come."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt


class Section(ABC):
    """Which frames have been received and imaged.

    Args:
        index: of the perspective or task.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.ended = False
        """All frames have been received."""
        self.queued = 0
        """Frames received and not yet imaged."""
        self.held: list[int] = []
        """Messages about it that the publisher keeps for an edge that is started again, until its results are final."""

    @property
    def complete(self) -> bool:
        """Whether every frame has been imaged once."""
        return self.ended and self.queued == 0

    def late(self, index: npt.NDArray[np.int32]) -> int:
        """Return how many frames (n,) are new though nothing can be added; the base class can always be added to."""
        return 0

    @abstractmethod
    def mark_received(self, index: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return which frames (n,) have not been received before, bool (n,), and remember them."""
