"""What the page is told of images whose classes come task by task."""

from __future__ import annotations

import pytest
from speaking import telemetry

from ptychoflow.dashboard.rows import TASKS_SHOWN
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState, StateCursor
from ptychoflow.streaming.events import ClassificationInfo, TaskAccuracies, TaskScores, TrainingStep

INFO = ClassificationInfo(
    "digits", [["0", "3"], ["1"]], images=[20, 10], channels=1, stored_px=8, validation=[[3, 1], [4]]
)


@pytest.fixture
def state() -> DashboardState:
    return DashboardState("run", DashboardSettings())


def scores(task: int, images: int, top1: float) -> TaskScores:
    return TaskScores(task, images, 4, top1, top1 + 0.25, oldest_version=1, newest_version=images)


def test_a_scan_has_no_tasks(state: DashboardState) -> None:
    assert state.present(now_s=0.0).classification is None


def test_tasks_are_told_live_and_after_learning(state: DashboardState) -> None:
    events = (
        INFO,
        scores(0, 8, 0.25),
        scores(0, 20, 0.5),
        TaskAccuracies(0, 7, {0: 0.75}, {0: 1.0}),
        scores(1, 5, 0.0),
        TaskAccuracies(1, 9, {0: 0.5, 1: 0.25}, {0: 1.0, 1: 0.5}),
    )
    for time_s, event in enumerate(events):
        state.apply(telemetry(event, float(time_s)))
    update, _ = state.update(StateCursor(), now_s=9.0)
    found = update.present.classification
    assert found is not None
    assert (found.classes, found.images_expected) == (3, 30)
    assert (found.chance_top1, found.chance_top5) == (0.5, 1.0), "always naming the only class of the second task"
    rows = [(row.class_names, row.images, row.top1, row.top5, row.now_top1, row.now_top5) for row in found.tasks]
    assert rows == [(["0", "3"], 20, 0.5, 0.75, 0.5, 1.0), (["1"], 5, 0.0, 0.25, 0.25, 0.5)]
    assert [(row.after_task, row.top1) for row in found.accuracies] == [(0, {0: 0.75}), (1, {0: 0.5, 1: 0.25})]
    assert update.series["tasks"].columns["top1"] == [0.25, 0.5, 0.0]


def test_a_step_on_images_has_one_loss(state: DashboardState) -> None:
    state.apply(telemetry(TrainingStep(3, 0.5, None, None, 1e-3, 16, 8, 100.0)))
    update, _ = state.update(StateCursor(), now_s=1.0)
    assert '"loss_phase":[null]' in update.model_dump_json()
    assert update.series["training"].columns["loss"] == [0.5]


def test_many_tasks_stay_bounded(state: DashboardState) -> None:
    tasks = 3 * TASKS_SHOWN
    state.apply(telemetry(ClassificationInfo("many", [[str(task)] for task in range(tasks)], [1] * tasks, 3, 32)))
    for task in range(tasks):
        state.apply(telemetry(scores(task, 1, 0.5)))
    found = state.present(now_s=0.0).classification
    assert found is not None
    assert len(found.tasks) <= TASKS_SHOWN
    assert found.tasks[-1].task == tasks - 1
