"""The training loop, the same on every rank.

Each step: take what of the stream is waiting, join representatives to it, agree with the other ranks on the kind of
step, train. When all ranks have reached the end of a perspective: evaluate and publish.
"""

from __future__ import annotations

import logging
import threading
import time

from streaming.events import ValidationLoss
from streaming.messages import PerspectiveEnd, ScanEnd
from trainer.agreement import Agreed, Proposal, agree
from trainer.arrivals import Arrivals
from trainer.batch import Batch
from trainer.constant import MeanPatch
from trainer.evaluation import Evaluator
from trainer.learner import Learner
from trainer.publication import Publication
from trainer.reporting import StepReport
from trainer.settings import Pace, TrainerSettings
from trainer.strategies.strategy import Strategy

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.05
"""How long a rank with nothing to train on waits for its stream before it joins the others' step without samples."""

NOT_FINITE = "the step's loss was not finite"


class TrainingLoop:
    """Trains until the scan has ended on all ranks, or `stop` is set.

    Args:
        settings: pace, sizes and periods.
        arrivals: this rank's stream.
        strategy: what each step learns from.
        learner: makes the steps.
        evaluator: measures the validation loss.
        mean_patch: gathers the constant prediction.
        publication: takes the weights; None on ranks other than 0.
        report: takes what happens.
        stop: ends the loop after the step under way.
    """

    def __init__(  # noqa: PLR0913  the parts of the algorithm, all by keyword
        self,
        settings: TrainerSettings,
        *,
        arrivals: Arrivals,
        strategy: Strategy,
        learner: Learner,
        evaluator: Evaluator,
        mean_patch: MeanPatch,
        publication: Publication | None,
        report: StepReport,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._arrivals, self._queue = arrivals, arrivals.queue
        self._strategy, self._learner = strategy, learner
        self._evaluator, self._mean_patch = evaluator, mean_patch
        self._publication, self._report, self._stop = publication, report, stop
        self._stepping = False
        self._scan_ended_s: float | None = None
        self._perspective = -1
        self._validation_loss: float | None = None
        self._published_s, self._published_steps = time.monotonic(), 0
        self._skipped_steps = 0
        self._warned_of_amplitude = False

    def run(self) -> None:
        """Train, evaluate and publish; the last weights are published as final."""
        while True:
            self._arrivals.check()
            batch = self._gather()
            agreed = agree(self._propose(batch))
            if agreed.stop:
                break
            if agreed.samples > 0:
                self._train(batch, agreed)
            if agreed.publish:
                self._publish(final=False)
            if agreed.perspective_ended:
                self._end_perspective()
            if agreed.scan_ended and self._is_finished(agreed):
                self._evaluate(limit=None)
                break
        self._publish(final=True)
        self._report.report_counts(self._arrivals.counts)

    def _gather(self) -> Batch | None:
        drawing = self._settings.pace is Pace.CONTINUOUS or self._scan_ended_s is not None
        wait_s = 0.0 if drawing and self._stepping else IDLE_WAIT_S
        with self._report.load.running():
            minibatch = self._queue.next_minibatch(self._settings.batch_size, timeout_s=wait_s)
            return self._strategy.gather(minibatch) if minibatch or drawing else None

    def _propose(self, batch: Batch | None) -> Proposal:
        marker = self._queue.marker
        return Proposal(
            stream=batch.stream if batch else 0,
            samples=len(batch) if batch else 0,
            perspective_ended=isinstance(marker, PerspectiveEnd),
            scan_ended=isinstance(marker, ScanEnd),
            stop=self._stop.is_set(),
            publish=self._is_publication_due(),
            finish=self._finish_progress(),
        )

    def _train(self, batch: Batch | None, agreed: Agreed) -> None:
        with self._report.train.running():
            loss = self._learner.train(batch, self._strategy, agreed)
        self._stepping = True
        stream = batch.stream if batch else 0
        if loss is None:
            self._skip(stream)
            return
        if batch is not None and stream > 0:
            self._mean_patch.add(batch.target, first=stream)
            self._arrivals.trained(stream)
            self._check_amplitude()
        self._report.step_done(self._learner, loss, batch, agreed=agreed, counts=self._arrivals.counts)

    def _skip(self, stream: int) -> None:
        self._skipped_steps += 1
        self._arrivals.reject(stream, reason=NOT_FINITE)
        self._report.warn(f"{NOT_FINITE}; {self._skipped_steps} steps skipped so far")

    def _end_perspective(self) -> None:
        marker = self._queue.marker
        if isinstance(marker, PerspectiveEnd):
            self._perspective = marker.perspective
        self._evaluate(limit=self._settings.evaluation_frames)
        self._publish(final=False)
        self._queue.pass_marker()

    def _is_finished(self, agreed: Agreed) -> bool:
        """Whether the training after the end of the stream is done; it begins with the first call."""
        if self._scan_ended_s is None:
            self._scan_ended_s = time.monotonic()
            return self._settings.finish_s == 0.0
        return agreed.finish >= 1.0 or agreed.samples == 0

    def _finish_progress(self) -> float:
        if self._scan_ended_s is None or self._publication is None:
            return 0.0
        return min(1.0, (time.monotonic() - self._scan_ended_s) / self._settings.finish_s)

    def _evaluate(self, *, limit: int | None) -> None:
        started_s = time.monotonic()
        self._learner.averaged.share_statistics()
        result = self._evaluator.evaluate(
            self._learner.averaged.network,
            self._mean_patch.over_all_ranks(),
            self._arrivals.validation(),
            limit=limit,
        )
        if result is None:
            return
        self._validation_loss = result.mean_over_seen
        log.info(
            "after perspective %d: validation loss %.4f, constant prediction %.4f, %.1f s",
            self._perspective,
            result.mean_over_seen,
            result.constant,
            time.monotonic() - started_s,
        )
        if self._publication is None:
            return
        self._report.send(
            ValidationLoss(
                after_perspective=self._perspective,
                step=self._learner.steps,
                per_perspective=result.per_perspective,
                mean_over_seen=result.mean_over_seen,
                constant=result.constant,
            )
        )
        if limit is None and result.mean_over_seen >= result.constant:
            self._report.warn(
                f"the network predicts no better than the mean training patch: validation loss "
                f"{result.mean_over_seen:.4f}, constant {result.constant:.4f}"
            )

    def _is_publication_due(self) -> bool:
        steps = self._learner.steps - self._published_steps
        if self._publication is None or steps == 0:
            return False
        every_s, every_steps = self._settings.publish_every_s, self._settings.publish_every_steps
        by_time = every_s > 0 and time.monotonic() - self._published_s >= every_s
        return by_time or 0 < every_steps <= steps

    def _publish(self, *, final: bool) -> None:
        self._learner.averaged.share_statistics()
        constant = self._mean_patch.over_all_ranks()
        self._published_s, self._published_steps = time.monotonic(), self._learner.steps
        if self._publication is not None:
            self._publication.publish(
                self._learner.averaged.snapshot(),
                constant,
                step=self._learner.steps,
                validation_loss=self._validation_loss,
                final=final,
            )

    def _check_amplitude(self) -> None:
        scale, largest = self._settings.amplitude_scale, self._arrivals.largest_amplitude
        if largest > scale and not self._warned_of_amplitude:
            self._warned_of_amplitude = True
            self._report.warn(
                f"amplitudes up to {largest:.2f} exceed trainer.amplitude_scale = {scale:g}, which the network cannot "
                "predict; raise it if more than a few pixels at the rim are concerned"
            )
