"""What comes of training on a running stream: when the network is evaluated and its weights are published."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from typing import Generic

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.events import ValidationLoss
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.interface.stream import SectionEnd
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.trainer.training.averaging import NetworkT
from ptychoflow.trainer.training.evaluation import Evaluation
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class PublishingCallback(Callback, ABC, Generic[NetworkT]):
    """Evaluates at the ends of perspectives and of the stream; publishes then, at intervals, and at last.

    Args:
        settings: periods and limits.
        ingest: holds the validation samples.
        learner: holds the network.
        publication: takes the weights; None on ranks other than 0.
        report: takes what happens.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        ingest: SampleIngest,
        learner: Learner[NetworkT],
        publication: Publication | None,
        report: StepReport,
    ) -> None:
        self._settings = settings
        self._ingest, self._learner = ingest, learner
        self._publication, self._report = publication, report
        self._perspective = -1
        """The last one that was learnt."""
        self._validation_loss: float | None = None
        self._published_s, self._published_steps = time.monotonic(), 0

    @abstractmethod
    def _weights_writer(self, network: NetworkT) -> Writer:
        """Return what writes a network on the CPU that nobody changes any more."""

    @abstractmethod
    def _evaluate(self, samples: dict[int, Arrays], *, limit: int | None) -> Evaluation | None:
        """Evaluate the averaged network on validation samples, as `means_by_perspective` limits them. Collective."""

    def _tell(self, result: Evaluation) -> None:
        """Log and report what the pipeline alone measures; on rank 0."""

    def _section_warning(self, result: Evaluation) -> str | None:
        """Return what a user should know after a perspective; on rank 0."""
        return None

    @abstractmethod
    def _no_better(self, result: Evaluation) -> str:
        """Return a warning that a network could have predicted the same without learning anything."""

    def _share(self) -> None:
        """Make what is evaluated and published the same on all ranks. Collective."""
        self._learner.averaged.share_statistics()

    def state(self) -> State:
        """Return what the next evaluations and publications go on from."""
        return {"perspective": self._perspective, "validation_loss": self._validation_loss}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self._perspective, self._validation_loss = state["perspective"], state["validation_loss"]

    def publish_is_due(self) -> bool:
        """Whether there are new weights and one of the intervals is over."""
        steps = self._learner.steps - self._published_steps
        if self._publication is None or steps == 0:
            return False
        every_s, every_steps = self._settings.publish_every_s, self._settings.publish_every_steps
        by_time = every_s > 0 and time.monotonic() - self._published_s >= every_s
        return by_time or 0 < every_steps <= steps

    def publish(self) -> None:
        """Publish the averaged weights as they are."""
        self._publish(final=False)

    def on_section_end(self, end: SectionEnd) -> None:
        """Evaluate on some of the validation samples of the perspectives learnt, and publish."""
        self._perspective = end.number
        result = self._evaluate_and_tell(limit=self._settings.evaluation_frames)
        if result is not None and self._publication is not None and (warning := self._section_warning(result)):
            self._report.warn(warning)
        self._publish(final=False)

    def on_finish_start(self) -> None:
        """Let the publisher go; not yet if ranks that are started again would have to ask it for the stream's end."""
        if not self._settings.checkpoint.enabled:
            self._ingest.queue.release_kept()

    def on_stream_end(self) -> None:
        """Evaluate on all validation samples; warn if that is no better than what needs no learning."""
        result = self._evaluate_and_tell(limit=None)
        if result is not None and self._publication is not None and result.mean_over_seen >= result.constant:
            self._report.warn(self._no_better(result))

    def on_training_end(self, *, stopped: bool) -> None:
        """Publish the last weights as final."""
        self._publish(final=True, stopped=stopped)

    def _evaluate_and_tell(self, *, limit: int | None) -> Evaluation | None:
        started_s = time.monotonic()
        self._share()
        samples = self._ingest.validation()
        so_far = {number: samples[number] for number in samples if number <= self._perspective}
        result = self._evaluate(so_far, limit=limit)
        if result is None:
            return None
        self._validation_loss = result.mean_over_seen
        log.info(
            "after perspective %d: validation loss %.4f, constant prediction %.4f, %.1f s",
            self._perspective,
            result.mean_over_seen,
            result.constant,
            time.monotonic() - started_s,
        )
        if self._publication is not None:
            self._tell(result)
            self._report.send(
                ValidationLoss(
                    after_perspective=self._perspective,
                    step=self._learner.steps,
                    per_perspective=result.per_perspective,
                    mean_over_seen=result.mean_over_seen,
                    constant=result.constant,
                )
            )
        return result

    def _publish(self, *, final: bool, stopped: bool = False) -> None:
        self._share()
        self._published_s, self._published_steps = time.monotonic(), self._learner.steps
        if self._publication is not None:
            self._publication.publish(
                self._weights_writer(self._learner.averaged.snapshot()),
                step=self._learner.steps,
                validation_loss=self._validation_loss,
                final=final,
                stopped=stopped,
            )
