"""What comes of the training: evaluations and published weights, each pipeline in its own way."""

from __future__ import annotations

from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.stream import SectionEnd


class Callback:
    """Told what the loop has done; this one does nothing. All but `on_step_end`, `publish_is_due` are collective."""

    def on_step_end(self, batch: Batch) -> None:
        """Samples of the stream were trained on; on the ranks that had some."""

    def publish_is_due(self) -> bool:
        """Whether weights should be published after the next step; rank 0's word counts."""
        return False

    def publish(self) -> None:
        """Publish the weights as they are."""

    def on_section_end(self, end: SectionEnd) -> None:
        """All ranks have trained on all samples of a section."""

    def on_finish_start(self) -> None:
        """All ranks have trained on all samples; what comes after begins."""

    def on_stream_end(self) -> None:
        """All ranks have trained on all samples, and are done with what comes after."""

    def on_training_end(self, *, stopped: bool) -> None:
        """Training has ended; before the end of the stream or of what comes after if it was `stopped`."""
