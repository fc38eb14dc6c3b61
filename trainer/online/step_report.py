"""What the trainer tells the dashboard and the run's record about its steps."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from ptychoflow.buffer import BufferStats, RehearsalBuffer
from ptychoflow.streaming.events import (
    AnyEvent,
    BufferReport,
    RankCounts,
    StepBreakdown,
    TrainingStep,
    WarningRaised,
)
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.online.sample_queue import SampleCounts
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.report import Report

PERIOD_S = 0.3
COUNTS_PERIOD_S = 1.0


class Telemetry(Protocol):
    """Where events go; `ptychoflow.streaming.telemetry.TelemetrySender` in a run."""

    def send(self, event: AnyEvent) -> None:
        """Take an event; must not block."""


class StepReport(Report):
    """Sums what happened since the last report and sends it a few times a second at most.

    Args:
        telemetry: where events go.
        rank: progress is reported by rank 0, counts and the buffer by every rank.
        counts: this rank's ledger.
        buffer: the rehearsal buffer, if the strategy has one.
    """

    def __init__(
        self, telemetry: Telemetry, *, rank: int, counts: SampleCounts, buffer: RehearsalBuffer | None
    ) -> None:
        super().__init__()
        self._counts = counts
        self._telemetry, self._rank, self._buffer = telemetry, rank, buffer
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        self._stream_samples = self.samples = self._samples_reported = 0
        self._reported_s = self._counted_s = time.monotonic()
        self._buffer_s = (0.0, 0.0, 0.0)
        self._steps = self._local_samples = 0
        self._loss = torch.zeros(())
        self._refusals_told: set[str] = set()
        self._losses_told: set[int] = set()

    def warn(self, text: str) -> None:
        """Say something that a user should know before trusting the result."""
        self._telemetry.send(WarningRaised(text))

    def step_skipped(self, text: str) -> None:
        """Say it."""
        self.warn(text)

    def state(self) -> State:
        """Return the cumulative figures."""
        return {"stream_samples": self._stream_samples, "samples": self.samples}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self._stream_samples = state["stream_samples"]
        self.samples = self._samples_reported = state["samples"]

    def send(self, event: AnyEvent) -> None:
        """Send an event of one's own."""
        self._telemetry.send(event)

    def step_done(self, learner: Learner[Any], loss: Tensor, batch: Batch | None, agreed: Agreed) -> None:
        """Take in a step of the learner, of whose loss this rank's share is `loss`, (terms,)."""
        self._steps += 1
        self._local_samples += len(batch) if batch else 0
        self._loss = self._loss + agreed.samples * loss
        self._stream_samples += agreed.stream
        self.samples += agreed.samples
        now_s = time.monotonic()
        if now_s - self._reported_s >= PERIOD_S and self._rank == 0 and self._local_samples > 0:
            self._report_progress(learner, elapsed_s=now_s - self._reported_s)
            self._reported_s = now_s
        if now_s - self._counted_s >= COUNTS_PERIOD_S:
            self._report_counts()
            self._counted_s = now_s

    def close(self) -> None:
        """Send the last counts."""
        self._report_counts(final=True)

    def _report_counts(self, *, final: bool = False) -> None:
        """Send this rank's ledger and the state of its buffer."""
        counts = self._counts
        self._warn_of_refusals(counts)
        rejected = sum(counts.rejected.values())
        self._telemetry.send(
            RankCounts(
                counts.trained, counts.validation, counts.duplicates, rejected, ranks=self._world_size, final=final
            )
        )
        if self._buffer is None:
            return
        stats = self._buffer.stats()
        self._warn_of_lost_ranks(stats)
        self._telemetry.send(
            BufferReport(
                capacity=stats.capacity,
                size=stats.size,
                transport=stats.transport,
                hidden_fraction=stats.hidden_fraction,
                waited_ms=1000.0 * stats.waited_s / max(1, stats.taken),
                background_ms=1000.0 * stats.background_s / max(1, stats.draws),
            )
        )

    def _warn_of_refusals(self, counts: SampleCounts) -> None:
        for reason in counts.rejected.keys() - self._refusals_told:
            self._refusals_told.add(reason)
            self.warn(f"rank {self._rank} refuses samples and goes on without them: {reason}")

    def _warn_of_lost_ranks(self, stats: BufferStats) -> None:
        for rank in stats.lost_ranks.keys() - self._losses_told:
            self._losses_told.add(rank)
            self.warn(
                f"rank {self._rank} rehearses without what rank {rank} has stored, for good: {stats.lost_ranks[rank]}; "
                "to rehearse all of it again, stop the run and resume it"
            )

    def _report_progress(self, learner: Learner[Any], *, elapsed_s: float) -> None:
        # As if every rank had this one's mean loss; exact for one rank, and no collective for many.
        terms = (self._loss / self._local_samples).tolist()
        amplitude, phase = terms if len(terms) == 2 else (None, None)
        self._telemetry.send(
            TrainingStep(
                step=learner.steps,
                loss=sum(terms),
                loss_amplitude=amplitude,
                loss_phase=phase,
                learning_rate=learner.rate,
                stream_samples=self._stream_samples,
                rehearsed_samples=self.samples - self._stream_samples,
                samples_per_s=(self.samples - self._samples_reported) / elapsed_s,
            )
        )
        waited_ms, populate_ms, augment_ms = self._buffer_ms()
        self._telemetry.send(
            StepBreakdown(
                step=learner.steps,
                load_ms=max(0.0, self.load.reset_ms(self._steps) - waited_ms),
                train_ms=self.train.reset_ms(self._steps),
                buffer_wait_ms=waited_ms,
                populate_ms=populate_ms,
                augment_ms=augment_ms,
            )
        )
        self._start_again()

    def _buffer_ms(self) -> tuple[float, ...]:
        """Return milliseconds per step waited for the buffer, and spent by it beside the step to insert and to draw."""
        if self._buffer is None:
            return 0.0, 0.0, 0.0
        stats = self._buffer.stats()
        before_s, self._buffer_s = self._buffer_s, (stats.waited_s, stats.populate_s, stats.augment_s)
        return tuple(
            1000.0 * (now_s - then_s) / self._steps for now_s, then_s in zip(self._buffer_s, before_s, strict=True)
        )

    def _start_again(self) -> None:
        self._steps = self._local_samples = 0
        self._loss = torch.zeros(())
        self._samples_reported = self.samples
