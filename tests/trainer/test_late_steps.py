"""A step of which it is known late whether it was made, as on a GPU: everything is told the same, one step later."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from test_learner import PIPELINE, learner, minibatch
from torch import Tensor

from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.interface.stream import SectionEnd, Stream, StreamEnd
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import OptimizerSettings, Pace
from ptychoflow.trainer.strategies.incremental import Incremental
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.loop import IDLE_WAIT_S, TrainingLoop
from ptychoflow.trainer.training.step_under_way import StepUnderWay
from ptychoflow.trainer.training.time_report import TimeReport

BAD = (0, 1, 4, 7)
STEPS, SIZE = 8, 4


class LateStep(StepUnderWay):
    """Not known before somebody waits for it."""

    is_known = False


class LateLearner(Learner[FrameNetwork]):
    """Begins steps as on a GPU."""

    def begin(self, batch: Batch | None, strategy: Strategy, agreed: Agreed) -> StepUnderWay:
        step = super().begin(batch, strategy, agreed)
        step.__class__ = LateStep
        return step


@dataclass
class Told(Stream, Callback):
    """A stream of minibatches, some of them not finite, which notes what the loop says of them."""

    trained: int = 0
    refused: int = 0
    served: int = 0
    learnt: list[int] = field(default_factory=list)

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        if self.end is not None:
            return None
        number, self.served = self.served, self.served + 1
        found = minibatch(range(SIZE * number, SIZE * number + SIZE))
        assert found is not None
        found["number"] = torch.tensor(number)
        return found | {"phase": found["phase"] * float("nan")} if number in BAD else found

    @property
    def end(self) -> SectionEnd | StreamEnd | None:
        return StreamEnd() if self.served == STEPS else None

    def begin_next_section(self) -> None:
        raise AssertionError

    def mark_trained(self) -> None:
        self.trained += SIZE

    def mark_refused(self, reason: str, samples: int) -> None:
        self.trained -= samples
        self.refused += samples

    def on_step_end(self, batch: Batch) -> None:
        assert batch.minibatch is not None
        self.learnt.append(int(batch.minibatch["number"]))


def trained(kind: type[Learner[FrameNetwork]], *, accumulate: int = 1) -> tuple[Told, TimeReport, dict[str, Any]]:
    made = learner(batch_norm=True, optimizer=OptimizerSettings(accumulate=accumulate))
    made.__class__ = kind
    told = Told()
    report = run_loop(told, made)
    return told, report, made.state() | made.rank_state()


def run_loop(told: Told, made: Learner[FrameNetwork], **settings: Any) -> TimeReport:
    """Train on all that `told` serves; return the loop's report."""
    report = TimeReport(None)
    TrainingLoop(
        TrainerSettings(batch_size=SIZE, finish_s=0.0, **settings),
        stream=told,
        strategy=Incremental(PIPELINE, device=torch.device("cpu")),
        learner=made,
        callback=told,
        report=report,
        stop=threading.Event(),
    ).run()
    return report


@dataclass
class Waiting(Told):
    """A stream that gives one minibatch, then nothing for a while, then its end; it notes how long it may wait."""

    allowed_s: list[float] = field(default_factory=list)

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        self.allowed_s.append(timeout_s)
        return super().next_minibatch(size, timeout_s=timeout_s) if len(self.allowed_s) == 2 else None

    @property
    def end(self) -> SectionEnd | StreamEnd | None:
        return StreamEnd() if len(self.allowed_s) > 6 else None


def test_a_rank_without_anything_to_learn_from_sleeps_until_there_is() -> None:
    stream = Waiting()
    run_loop(stream, learner(batch_norm=True), pace=Pace.CONTINUOUS)
    assert stream.served == 1
    assert stream.allowed_s == [IDLE_WAIT_S, IDLE_WAIT_S, 0.0, *[IDLE_WAIT_S] * 4]


@pytest.mark.parametrize("kind", [Learner, LateLearner])
def test_skipped_steps_are_told_and_leave_nothing_whenever_that_is_known(kind: type[Learner[FrameNetwork]]) -> None:
    told, report, state = trained(kind)
    good = [number for number in range(STEPS) if number not in BAD]
    assert told.learnt == good
    assert (told.trained, told.refused) == (SIZE * len(good), SIZE * len(BAD))
    assert (report.steps, report.skipped, report.samples) == (len(good), len(BAD), SIZE * len(good))
    assert state["steps"] == len(good)
    _told, _report, expected = trained(Learner)
    assert list(tensors(state)) == list(tensors(expected))


@pytest.mark.parametrize("kind", [Learner, LateLearner])
def test_all_minibatches_of_a_step_that_is_skipped_are_refused(kind: type[Learner[FrameNetwork]]) -> None:
    told, report, state = trained(kind, accumulate=2)
    steps = [{number, number + 1} for number in range(0, STEPS, 2)]
    refused = [step for step in steps if step & set(BAD)]
    assert (state["steps"], report.skipped) == (len(steps) - len(refused), len(refused))
    assert told.refused == 2 * SIZE * len(refused), "what one of them spoils none of them has taught"
    assert told.trained == 2 * SIZE * state["steps"]


@dataclass
class Ended(Told):
    """Notes how many steps were made when the weights are evaluated for the last time."""

    made: Learner[FrameNetwork] = field(kw_only=True)
    steps: int = -1

    def on_stream_end(self) -> None:
        self.steps = self.made.steps
        assert self.made.between_steps


@pytest.mark.parametrize("bad", [(), (7,)])
def test_what_is_evaluated_last_has_learnt_from_minibatches_that_waited_for_others(
    bad: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step is made of two minibatches, where others are made of three, or is refused as a whole."""
    monkeypatch.setattr("test_late_steps.BAD", bad)
    made = learner(batch_norm=True, optimizer=OptimizerSettings(accumulate=3))
    told = Ended(made=made)
    report = run_loop(told, made)
    assert told.steps == made.steps == (2 if bad else 3)
    refused = 2 * SIZE if bad else 0
    assert (told.trained, told.refused) == (SIZE * STEPS - refused, refused)
    assert report.skipped == len(bad)


def tensors(state: Any) -> list[bytes]:
    """Return the bytes of all numbers in a nested state."""
    if isinstance(state, Tensor):
        return [state.contiguous().numpy().tobytes()]
    return [found for value in state.values() for found in tensors(value)] if isinstance(state, dict) else []
