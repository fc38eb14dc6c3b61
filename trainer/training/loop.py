"""The training loop, the same on every rank and for every pipeline.

Each step: fetch what of the stream is waiting, join representatives to it, agree with the other ranks on the kind of
step, train. When all ranks have reached the end of a section: evaluate and publish.

A GPU is still computing a step while the loop fetches and agrees on the next one. Whether the step was made, or skipped
because its gradient was not finite, is read and told once the next one was begun, and before anything else is done.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

import torch.distributed as dist

from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.interface.agreement import Agreed, Proposal, agree
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.interface.stream import SectionEnd, Stream, StreamEnd
from ptychoflow.trainer.settings import LearningSettings, Pace
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.report import Report
from ptychoflow.trainer.training.step_under_way import StepUnderWay

IDLE_WAIT_S = 0.05
"""How long a rank with nothing to train on waits for its stream before it joins the others' step without samples."""

NOT_FINITE = "the step's loss was not finite"


class Checkpoints(Protocol):
    """Keeps what training can go on from; `save` and `finish` are called by all ranks after the same step."""

    def request(self) -> None:
        """Have a checkpoint written soon."""

    def is_due(self) -> bool:
        """Whether one should be written after the next step; rank 0's word counts."""

    def save(self, loop: State) -> None:
        """Write one, with what the loop must remember."""

    def finish(self, loop: State, *, stopped: bool) -> None:
        """Write the last one; `stopped` says that training was asked to end early."""


class TrainingLoop:
    """Trains until the stream has ended on all ranks, or `stop` is set.

    Args:
        settings: pace, size and duration.
        stream: this rank's samples.
        strategy: what each step learns from.
        learner: makes the steps.
        callback: evaluates and publishes.
        report: takes what happens.
        stop: ends the loop after the step under way.
        checkpoints: told when training may go on from here.
    """

    def __init__(
        self,
        settings: LearningSettings,
        *,
        stream: Stream,
        strategy: Strategy,
        learner: Learner[Any],
        callback: Callback,
        report: Report,
        stop: threading.Event,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._settings, self._stream = settings, stream
        self._strategy, self._learner = strategy, learner
        self._callback, self._report, self._stop = callback, report, stop
        self._stepping = False
        self._checkpoints, self._goes_on = checkpoints, False
        self._stream_ended_s: float | None = None
        self._finished_before = 0.0
        self._skipped_steps = 0
        self._unlearnt = 0
        """Samples of the stream whose gradient waits for others to be averaged with."""
        self._under_way: tuple[StepUnderWay, Batch | None, Agreed] | None = None
        self._leads = not dist.is_initialized() or dist.get_rank() == 0

    def restore(self, memory: State) -> None:
        """Go on from what a checkpoint remembered of the loop that took it."""
        self._skipped_steps, self._finished_before = memory["skipped_steps"], memory["finish"]

    def run(self, *, goes_on: bool = False) -> None:
        """Train, and tell the callback of every end.

        Args:
            goes_on: another loop of the same learner follows, and takes up gradients that still wait for others.
        """
        self._goes_on = goes_on
        while True:
            self._stream.check()
            batch = self._gather()
            agreed = agree(self._propose(batch))
            if agreed.stop:
                if agreed.samples > 0:  # the buffer may hold them already, and they would be sent again
                    self._train(batch, agreed)
                break
            if self._step(batch, agreed):
                break
        self._settle()
        self._callback.on_training_end(stopped=agreed.stop)
        self._report.close()
        if self._checkpoints is not None:
            self._checkpoints.finish(self._memory(), stopped=agreed.stop)

    def _step(self, batch: Batch | None, agreed: Agreed) -> bool:
        """Do what was agreed; return whether training is finished."""
        self._stepping = agreed.samples > 0
        if self._stepping:
            self._train(batch, agreed)
        if agreed.samples == 0 or agreed.publish or agreed.section_ended or agreed.checkpoint:
            self._settle()
        if agreed.publish:
            self._callback.publish()
        if agreed.section_ended:
            self._end_section()
        if agreed.stream_ended and self._is_finished(agreed):
            self._settle()
            if not self._goes_on:
                self._complete()
            self._callback.on_stream_end()
            return True
        if agreed.checkpoint and self._checkpoints is not None:
            self._checkpoints.save(self._memory())
        return False

    def _memory(self) -> State:
        return {"skipped_steps": self._skipped_steps, "finish": self._finish_progress()}

    def _gather(self) -> Batch | None:
        drawing = self._settings.pace is Pace.CONTINUOUS or self._stream_ended_s is not None
        wait_s = 0.0 if drawing and self._stepping else IDLE_WAIT_S
        with self._report.load.running():
            minibatch = self._stream.next_minibatch(self._settings.batch_size, timeout_s=wait_s)
            return self._strategy.gather(minibatch) if minibatch or drawing else None

    def _propose(self, batch: Batch | None) -> Proposal:
        end = self._stream.end
        return Proposal(
            stream=batch.stream if batch else 0,
            samples=len(batch) if batch else 0,
            section_ended=isinstance(end, SectionEnd),
            stream_ended=isinstance(end, StreamEnd),
            stop=self._stop.is_set(),
            publish=self._callback.publish_is_due(),
            checkpoint=self._checkpoints is not None and self._checkpoints.is_due(),
            finish=self._finish_progress(),
        )

    def _train(self, batch: Batch | None, agreed: Agreed) -> None:
        with self._report.train.running():
            step = self._learner.begin(batch, self._strategy, agreed)
        self._stream.mark_trained()
        before, self._under_way = self._under_way, (step, batch, agreed)
        if before is not None:
            self._tell(*before)
        if step.is_known:
            self._settle()

    def _settle(self) -> None:
        """Wait for the step under way, and tell what became of it."""
        if self._under_way is not None:
            self._learner.settle()
            step, self._under_way = self._under_way, None
            self._tell(*step)

    def _tell(self, step: StepUnderWay, batch: Batch | None, agreed: Agreed) -> None:
        learnt = 0 if batch is None else batch.stream
        of_the_step = self._unlearnt + learnt
        self._unlearnt = 0 if step.is_due else of_the_step
        if not step.made:
            self._tell_skipped(of_the_step)
            return
        if batch is not None and learnt > 0:
            self._callback.on_step_end(batch)
        self._report.step_done(self._learner, step.share, batch, agreed)

    def _tell_skipped(self, samples: int) -> None:
        self._skipped_steps += 1
        self._stream.mark_refused(NOT_FINITE, samples)
        self._report.step_skipped(f"{NOT_FINITE}; {self._skipped_steps} steps skipped so far")

    def _complete(self) -> None:
        """Make a step of the gradients that wait for others: what is evaluated and published has learnt from all."""
        step = self._learner.complete()
        if step is not None and not step.made:
            self._tell_skipped(self._unlearnt)
        self._unlearnt = 0

    def _end_section(self) -> None:
        end = self._stream.end
        if isinstance(end, SectionEnd):
            self._callback.on_section_end(end)
        self._stream.begin_next_section()
        if self._checkpoints is not None:
            self._checkpoints.request()

    def _is_finished(self, agreed: Agreed) -> bool:
        """Whether the training after the end of the stream is done; it begins with the first call."""
        if self._stream_ended_s is None:
            self._stream_ended_s = time.monotonic()
            self._settle()
            self._callback.on_finish_start()
            if self._checkpoints is not None:
                self._checkpoints.request()
            return self._settings.finish_s == 0.0
        return agreed.finish >= 1.0 or agreed.samples == 0

    def _finish_progress(self) -> float:
        if not self._leads:
            return 0.0
        if self._stream_ended_s is None or self._settings.finish_s == 0.0:
            return self._finished_before
        return min(1.0, self._finished_before + (time.monotonic() - self._stream_ended_s) / self._settings.finish_s)
