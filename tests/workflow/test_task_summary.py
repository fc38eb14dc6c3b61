"""What a summary says of tasks."""

from __future__ import annotations

from typing import Any

import pytest
from speaking import telemetry

from ptychoflow.streaming.events import AnyEvent, ClassificationInfo, TaskAccuracies, TaskScores, TrainingResumed
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.summary import summarise

INFO = ClassificationInfo("digits", [["0", "3"], ["1", "2"]], images=[20, 10], channels=1, stored_px=8)


def scores(task: int, top1: float, top5: float) -> TaskScores:
    return TaskScores(task, 20, 8, top1, top5, oldest_version=1, newest_version=3)


def accuracies(task: int, step: int, *top1: float) -> TaskAccuracies:
    shares = dict(enumerate(top1))
    return TaskAccuracies(task, step, shares, {number: min(1.0, share + 0.25) for number, share in shares.items()})


def section(*events: AnyEvent) -> dict[str, Any] | None:
    return summarise(RunState().apply_all(map(telemetry, events)))["classification"]


def test_a_run_on_a_scan_has_no_such_section() -> None:
    assert section() is None


def test_live_scores_and_the_matrix() -> None:
    found = section(
        INFO,
        scores(0, 0.5, 0.75),
        accuracies(0, 10, 0.75),
        scores(1, 0.25, 0.5),
        accuracies(1, 20, 0.5, 0.25),
        accuracies(1, 30, 0.625, 0.5),
    )
    assert found is not None
    assert found["chance"] == {"top1": 0.25, "top5": 1.0}
    assert [task["first_pass"]["top1"] for task in found["tasks"]] == [0.5, 0.25]
    assert found["tasks"][1]["classes"] == ["1", "2"]
    assert found["first_pass"] == {"top1": 0.375, "top5": 0.625}
    assert found["accuracy_top1"] == [[0.75], [0.625, 0.5]]
    assert found["average_top1"] == pytest.approx(0.5625)
    assert found["forgetting"] == found["backward_transfer"] * -1 == pytest.approx(0.125)


def test_what_training_forgot_by_going_back_is_forgotten() -> None:
    found = section(INFO, accuracies(0, 10, 0.75), accuracies(1, 20, 0.5, 0.25), TrainingResumed(15))
    assert found is not None
    assert found["accuracy_top1"] == [[0.75]]
    assert found["tasks"][1]["first_pass"] is None
    assert found["first_pass"] == {"top1": None, "top5": None}
