"""What comes of training on a running stream, whatever it brings: when weights are published, and what is evaluated."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Generic

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.ingest import Arrivals
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.trainer.training.averaging import NetworkT
from ptychoflow.trainer.training.learner import Learner


class PublishingCallback(Callback, Generic[NetworkT]):
    """Publishes at the ends of perspectives, at intervals, and at last; evaluations are left to the pipeline.

    Args:
        settings: periods and limits.
        arrivals: holds the validation samples.
        learner: holds the network.
        publication: takes the weights; None on ranks other than 0.
        report: takes what happens.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        arrivals: Arrivals,
        learner: Learner[NetworkT],
        publication: Publication | None,
        report: StepReport,
    ) -> None:
        self._arrivals, self._learner = arrivals, learner
        self._publication, self._report = publication, report
        self._every_s, self._every_steps = settings.publish_every_s, settings.publish_every_steps
        self._releases_at_end = not settings.checkpoint.enabled
        self._perspective = -1
        """The last one that was learnt."""
        self._validation_loss: float | None = None
        self._published_s, self._published_steps = time.monotonic(), 0

    @abstractmethod
    def _writer(self, network: NetworkT) -> Writer:
        """Return what writes a network on the CPU that nobody changes any more."""

    def _share(self) -> None:
        """Make what is published the same on all ranks. Collective."""
        self._learner.averaged.share_statistics()

    def state(self) -> State:
        """Return what the next evaluations and publications go on from."""
        return {"perspective": self._perspective, "validation_loss": self._validation_loss}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self._perspective, self._validation_loss = state["perspective"], state["validation_loss"]

    def is_due(self) -> bool:
        """Whether there are new weights and one of the intervals is over."""
        steps = self._learner.steps - self._published_steps
        if self._publication is None or steps == 0:
            return False
        by_time = self._every_s > 0 and time.monotonic() - self._published_s >= self._every_s
        return by_time or 0 < self._every_steps <= steps

    def publish(self) -> None:
        """Publish the averaged weights as they are."""
        self._publish(final=False)

    def begin_finish(self) -> None:
        """Let the publisher go; not yet if ranks that are started again would have to ask it for the stream's end."""
        if self._releases_at_end:
            self._arrivals.end_scan()

    def close(self, *, stopped: bool) -> None:
        """Publish the last weights as final."""
        self._publish(final=True, stopped=stopped)

    def _publish(self, *, final: bool, stopped: bool = False) -> None:
        self._share()
        self._published_s, self._published_steps = time.monotonic(), self._learner.steps
        if self._publication is not None:
            write = self._writer(self._learner.averaged.snapshot())
            self._publication.publish(
                write,
                step=self._learner.steps,
                validation_loss=self._validation_loss,
                final=final,
                stopped=stopped,
            )

    def _validation_so_far(self) -> dict[int, Arrays]:
        """Return the validation samples of the perspectives that were learnt; those of later ones may be there too."""
        samples = self._arrivals.validation()
        return {perspective: samples[perspective] for perspective in samples if perspective <= self._perspective}
