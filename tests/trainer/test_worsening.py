"""When a validation loss counts as worsening."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ptychoflow.trainer.checkpoints.state_file import read_state, write_state
from ptychoflow.trainer.interface.stream import SectionEnd
from ptychoflow.trainer.pipelines.ptychography.callback import PtychographyCallback
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.pipelines.ptychography.worsening import Worsening
from ptychoflow.trainer.training.evaluation import Evaluation


def heed(worsening: Worsening, *evaluations: dict[int, float]) -> list[str | None]:
    return [worsening.compare(perspective, losses) for perspective, losses in enumerate(evaluations)]


def test_a_loss_that_rises_three_times_in_a_row_is_warned_of_once() -> None:
    worsening = Worsening(3)
    rising = [{0: 0.10 * 1.02**number} for number in range(6)]
    warned = heed(worsening, *rising)
    assert [text is not None for text in warned] == [False, False, False, True, False, False]
    assert warned[3] == (
        "validation has worsened after each of the last 3 perspectives: on those before, the loss rose from "
        "0.1000 to 0.1061"
    )


def test_a_harder_perspective_that_is_new_is_no_worsening() -> None:
    harder = [{index: 0.1 * (index + 1) for index in range(count)} for count in range(1, 9)]
    assert heed(Worsening(2), *harder) == [None] * 8


def test_forgetting_shows_although_new_perspectives_are_learned_ever_better() -> None:
    forgetting = [{0: 0.10}, {0: 0.12, 1: 0.05}, {0: 0.14, 1: 0.06, 2: 0.03}]
    warned = heed(Worsening(2), *forgetting)
    assert warned[:2] == [None, None]
    assert warned[2] is not None
    assert "from 0.1000 to 0.1400" in warned[2]


def test_what_is_validated_on_before_its_turn_hides_nothing() -> None:
    ahead = [{0: 0.1, 1: 0.9}, {0: 0.2, 1: 0.1}]
    warned = heed(Worsening(1), *ahead)
    assert warned[1] is not None
    assert "from 0.1000 to 0.2000" in warned[1]


def test_noise_within_one_percent_and_a_single_better_evaluation_end_the_row() -> None:
    worsening = Worsening(2)
    assert heed(worsening, {0: 0.1}, {0: 0.1009}, {0: 0.1018}, {0: 0.1027}) == [None] * 4
    assert heed(worsening, {0: 0.2}, {0: 0.19}, {0: 0.25}) == [None] * 3
    assert worsening.compare(3, {0: 0.3}) is not None


def test_a_new_row_is_warned_of_again() -> None:
    worsening = Worsening(1)
    warned = heed(worsening, {0: 0.1}, {0: 0.2}, {0: 0.1}, {0: 0.2})
    assert [text is not None for text in warned] == [False, True, False, True]


def test_a_loss_that_is_not_a_number_is_worse() -> None:
    assert heed(Worsening(1), {0: 0.1}, {0: math.nan})[1] is not None


class Evaluated(PtychographyCallback):
    """A callback whose evaluations are given, and which publishes nothing."""

    def __init__(self) -> None:
        self.warned: list[str] = []
        self.losses: dict[int, float] = {}
        learner: Any = SimpleNamespace(steps=1, averaged=SimpleNamespace(share_statistics=lambda: None))
        ingest: Any = SimpleNamespace(validation=dict)
        report: Any = SimpleNamespace(warn=self.warned.append, send=lambda _: None)
        of_rank_0: Any = object()
        super().__init__(
            TrainerSettings(worsening_perspectives=3),
            ingest=ingest,
            learner=learner,
            evaluator=of_rank_0,
            mean_patch=MeanPatch((2, 2), device=torch.device("cpu")),
            publication=of_rank_0,
            report=report,
        )

    def _evaluate(self, samples: object, *, limit: int | None) -> Evaluation:
        return Evaluation(self.losses, dict.fromkeys(self.losses, 1.0))

    def _publish(self, *, final: bool, stopped: bool = False) -> None:
        pass

    def end(self, perspective: int, losses: dict[int, float]) -> list[str]:
        """Return all warnings so far."""
        self.losses = losses
        self.on_section_end(SectionEnd(perspective))
        return self.warned


@pytest.mark.parametrize("interrupted_after", [0, 1, 2])
def test_a_row_goes_on_after_a_checkpoint(tmp_path: Path, interrupted_after: int) -> None:
    callback = Evaluated()
    for number in range(4):
        warned = callback.end(number, {0: 0.10 * 1.02**number})
        assert bool(warned) == (number == 3)
        if number == interrupted_after:
            write_state(callback.state(), tmp_path / "state")
            callback = Evaluated()
            callback.restore(read_state(tmp_path / "state"))


def test_a_checkpoint_of_an_earlier_version_begins_a_new_row() -> None:
    callback = Evaluated()
    callback.restore({"perspective": 5, "validation_loss": 0.1})
    assert callback.state()["perspective"] == 5
    assert callback.end(6, {0: 0.2}) == []
