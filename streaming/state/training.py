"""How training goes: its figures, validation losses and buffer. What was reported of steps that were undone is void."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ptychoflow.streaming.events import (
    BufferReport,
    RankCounts,
    StepBreakdown,
    Telemetry,
    TrainingResumed,
    TrainingStep,
    ValidationLoss,
)
from ptychoflow.streaming.messages import MAX_RANKS
from ptychoflow.streaming.state.rate import Rate
from ptychoflow.streaming.state.rows import Rows, newest_of
from ptychoflow.streaming.state.series import Series

EVALUATIONS_KEPT = 4096
MATRIX_ROWS_KEPT = 256
MATRIX_COLUMNS_KEPT = 1000
RESUMES_KEPT = 1000


@dataclass(frozen=True)
class Evaluation:
    """The validation loss at one moment, without what it was on single perspectives."""

    after_perspective: int
    step: int
    mean_over_seen: float
    constant: float


class TrainingHistory:
    """Follows the training of one run.

    Args:
        curves: `training`, `validation`, `steps` and `buffer` are appended to.
    """

    def __init__(self, curves: Mapping[str, Series]) -> None:
        self.resumed_from_steps: deque[int] = deque(maxlen=RESUMES_KEPT)
        self.samples = Rate()
        self.evaluations: Rows[tuple[int, int], Evaluation] = Rows(EVALUATIONS_KEPT)
        self.validation: Rows[tuple[int, int], ValidationLoss] = Rows(MATRIX_ROWS_KEPT, by_key=True)
        """The newest evaluations with the loss on every single perspective."""
        self.buffers: dict[int, BufferReport] = {}
        """By rank."""
        self._curves = curves

    @property
    def newest(self) -> TrainingStep | None:
        """The newest report of a step that was not undone."""
        newest = self._curves["training"].newest
        return newest if isinstance(newest, TrainingStep) else None

    @property
    def steps(self) -> int | None:
        """Steps made that count, None before the first report."""
        if self.newest is not None:
            return self.newest.step
        return self.resumed_from_steps[-1] if self.resumed_from_steps else None

    def apply(self, telemetry: Telemetry, *, at_s: float, number: int) -> None:
        """Take in event `number`; kinds that say nothing of training are ignored."""
        match telemetry.event:
            case TrainingStep() as step:
                self._append("training", at_s, step)
                self.samples.add(at_s, step.stream_samples + step.rehearsed_samples)
            case StepBreakdown() as breakdown:
                self._append("steps", at_s, breakdown)
            case ValidationLoss() as loss:
                self._append("validation", at_s, loss)
                self._take_loss(loss, number)
            case BufferReport() as report if 0 <= telemetry.rank < MAX_RANKS:
                self.buffers[telemetry.rank] = report
                self._append_buffers(at_s, report.capacity)
            case RankCounts(ranks=ranks) if ranks > 0:
                self.buffers = {rank: report for rank, report in self.buffers.items() if rank < ranks}
            case TrainingResumed(step=step):
                self.resumed_from_steps.append(step)
                self._undo(step, number)
            case _:
                pass

    def _append(self, curve: str, at_s: float, event: TrainingStep | StepBreakdown | ValidationLoss) -> None:
        source = event
        if isinstance(event, ValidationLoss):
            source = msgspec.structs.replace(event, per_perspective={})
        self._curves[curve].append(at_s, msgspec.structs.asdict(event), source=source)

    def _append_buffers(self, at_s: float, capacity: int) -> None:
        reports = self.buffers.values()
        size = sum(report.size for report in reports)
        hidden = sum(report.hidden_fraction for report in reports) / len(reports)
        self._curves["buffer"].append(at_s, {"size": size, "capacity": capacity, "hidden_fraction": hidden})

    def _take_loss(self, loss: ValidationLoss, number: int) -> None:
        after, step = loss.after_perspective, loss.step
        self.evaluations.put((after, step), Evaluation(after, step, loss.mean_over_seen, loss.constant), event=number)
        bounded = msgspec.structs.replace(loss, per_perspective=newest_of(loss.per_perspective, MATRIX_COLUMNS_KEPT))
        self.validation.put((after, step), bounded, event=number)

    def _undo(self, step: int, number: int) -> None:
        for name in ("training", "steps", "validation"):
            self._curves[name].undo(lambda source: source.step > step)
        self.evaluations.undo(lambda row: row.step > step, event=number)
        self.validation.undo(lambda row: row.step > step, event=number)
