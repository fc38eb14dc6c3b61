"""What a summary says of tasks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from speaking import telemetry

from ptychoflow.streaming.events import AnyEvent, ClassificationInfo, TaskAccuracies, TaskScores, TrainingResumed
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.report import judge
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


def test_guessing_is_the_best_that_can_be_said_without_looking() -> None:
    """Nine in ten validation images are of one class: naming it is no knowledge."""
    info = ClassificationInfo(
        "uneven", [["a", "b", "c"]], images=[200], channels=1, stored_px=8, validation=[[90, 4, 6]]
    )
    found = section(info, accuracies(0, 10, 0.9))
    assert found is not None
    assert found["chance"] == {"top1": 0.9, "top5": 1.0}
    for top1, grade in ((0.9, "bad"), (0.93, "slight"), (0.97, "good")):
        assert judge({"classification": section(info, accuracies(0, 10, top1))}).grade == grade


def test_guessing_is_judged_on_the_tasks_that_the_network_is() -> None:
    """The mean over tasks counts each task alike, however many images it has."""
    info = msgspec.structs.replace(INFO, validation=[[30, 10], [1, 1]])
    first, both = section(info, accuracies(0, 10, 0.5)), section(info, accuracies(1, 20, 0.5, 0.5))
    assert first is not None
    assert both is not None
    assert (first["chance"]["top1"], both["chance"]["top1"]) == (0.75, 0.375)


def test_runs_that_do_not_tell_of_validation_images_can_still_be_read() -> None:
    older = {name: value for name, value in msgspec.to_builtins(INFO).items() if name != "validation"}
    assert section(msgspec.convert(older, ClassificationInfo)) == section(INFO)
