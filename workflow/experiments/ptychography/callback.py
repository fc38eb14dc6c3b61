"""What comes of a training: the validation loss on every perspective, after every perspective."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.interface.stream import SectionEnd
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluator
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.training.evaluation import Evaluation
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


@dataclass
class LossRecord:
    """Losses are L1 of the amplitude plus L1 of the phase, over the validation frames of one perspective."""

    perspectives: list[int] = field(default_factory=list)
    """Those that have validation frames; all lists of losses go by them."""
    untrained: list[float] = field(default_factory=list)
    """On every perspective, before the first step."""
    sections: list[int] = field(default_factory=list)
    """Perspectives, or epochs, after which was evaluated."""
    matrix: list[list[float]] = field(default_factory=list)
    """After each section, on every perspective, those to come included."""
    raw_matrix: list[list[float]] = field(default_factory=list)
    """Likewise, of the weights as the last step left them, without the moving average; empty without a network."""
    constants: list[list[float]] = field(default_factory=list)
    """Likewise, of always predicting the mean of the training patches so far."""
    steps: int = 0
    seconds: float = 0.0
    """Of training; evaluation and checkpoints are left out."""


class LossCallback(Callback):
    """Evaluates on all perspectives at the end of every section.

    Args:
        record: is added to.
        learner: holds the network.
        evaluator: measures the losses.
        mean_patch: gathers the constant prediction.
        validation: this rank's validation samples by perspective.
        after_section: called with the section's number and its evaluation, on every rank.
    """

    def __init__(
        self,
        record: LossRecord,
        *,
        learner: Learner[FrameNetwork],
        evaluator: Evaluator,
        mean_patch: MeanPatch,
        validation: Mapping[int, Arrays],
        after_section: Callable[[int, Evaluation], None],
    ) -> None:
        self.record = record
        self._learner, self._evaluator, self._mean_patch = learner, evaluator, mean_patch
        self._validation, self._after_section = validation, after_section
        if not record.untrained:
            untrained = self._evaluate().per_perspective
            record.perspectives, record.untrained = list(untrained), list(untrained.values())
        self._resumed_s = time.monotonic()

    def on_step_end(self, batch: Batch) -> None:
        """Take the ground truth into the mean patch."""
        self._mean_patch.accumulate(Patches(*batch.target), first=batch.stream)

    def on_section_end(self, end: SectionEnd) -> None:
        """Evaluate."""
        self.record.seconds += time.monotonic() - self._resumed_s
        self.record.steps = self._learner.steps
        number = end.number
        found = self._evaluate()
        self.record.sections.append(number)
        self.record.matrix.append(list(found.per_perspective.values()))
        self.record.constants.append(list(found.constant_per_perspective.values()))
        raw = self._evaluate_raw() if self._learner.averaged.averages else found
        self.record.raw_matrix.append(list(raw.per_perspective.values()))
        log.info(
            "section %d, step %d: validation loss over all perspectives %.4f, constant prediction %.4f",
            number,
            self._learner.steps,
            found.mean_over_seen,
            found.constant,
        )
        self._after_section(number, found)
        self._resumed_s = time.monotonic()

    def _evaluate(self) -> Evaluation:
        self._learner.averaged.share_statistics()
        return self._evaluation_of(self._learner.averaged.network)

    def _evaluate_raw(self) -> Evaluation:
        """Each rank normalises by its own batch-norm statistics."""
        with self._learner.resting() as network:
            return self._evaluation_of(network)

    def _evaluation_of(self, network: FrameNetwork) -> Evaluation:
        found = self._evaluator.evaluate(network, self._mean_patch.over_all_ranks(), self._validation, limit=None)
        if found is None:
            raise RuntimeError("no perspective has a validation frame")
        return found
