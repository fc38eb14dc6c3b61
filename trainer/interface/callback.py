"""What comes of the training: evaluations and published weights, each pipeline in its own way."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.stream import Marker


class Callback(ABC):
    """Is told what the loop has done. `publish` and what ends something are collective."""

    def after_step(self, batch: Batch) -> None:
        """Take in that samples of the stream were trained on; on the ranks that had some."""

    def is_due(self) -> bool:
        """Whether weights should be published after the next step; rank 0's word counts."""
        return False

    def publish(self) -> None:
        """Publish the weights as they are."""

    @abstractmethod
    def end_section(self, marker: Marker) -> None:
        """All ranks have trained on all samples before the marker."""

    def begin_finish(self) -> None:
        """All ranks have trained on all samples; what comes after begins."""

    @abstractmethod
    def end_stream(self) -> None:
        """All ranks have trained on all samples, and are done with what comes after."""

    def close(self, *, stopped: bool) -> None:
        """Training has ended; before the end of the stream or of what comes after if it was `stopped`."""
