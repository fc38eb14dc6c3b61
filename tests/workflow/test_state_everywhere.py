"""One reducer for page, summary, report and progress: they agree, whatever the events are."""

from __future__ import annotations

import enum
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speaking import of_rank, telemetry

from ptychoflow.dashboard.metrics import metrics_text
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState, StateCursor
from ptychoflow.streaming.events import (
    AnyEvent,
    BufferReport,
    ClassificationInfo,
    Part,
    RankCounts,
    StepBreakdown,
    TaskAccuracies,
    TaskScores,
    Telemetry,
    TrainingResumed,
    TrainingStep,
    ValidationLoss,
    Whole,
)
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.loss_plot import loss_plot
from ptychoflow.workflow.progress import describe
from ptychoflow.workflow.quality_plot import quality_plot
from ptychoflow.workflow.report import judge
from ptychoflow.workflow.residual_plot import residual_plot
from ptychoflow.workflow.results import headline
from ptychoflow.workflow.step_plot import step_plot
from ptychoflow.workflow.summary import summarise

NUMBERS = st.one_of(
    st.integers(-3, 12), st.sampled_from([10**9, -(10**9), 2**53, -(2**53)]), st.integers(-(2**53), 2**53)
)
FIGURES = st.one_of(
    st.floats(0, 1),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 0.0]),
)
TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["", "<b>", "x" * 5000, "\x00", "\u202e"]))


SINGLE = {Whole: NUMBERS, int: NUMBERS, float: FIGURES, str: TEXTS, bool: st.booleans(), type(None): st.none()}
SEVERAL: dict[Any, Callable[..., st.SearchStrategy[Any]]] = {
    types.UnionType: st.one_of,
    typing.Union: st.one_of,
    tuple: st.tuples,
    list: lambda item: st.lists(item, max_size=4),
    dict: lambda key, value: st.dictionaries(key, value, max_size=4),
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return well-formed values of a field, the hostile ones among them."""
    if kind in SINGLE:
        return SINGLE[kind]
    if typing.get_origin(kind) in SEVERAL:
        return SEVERAL[typing.get_origin(kind)](*map(values_of, typing.get_args(kind)))
    return st.sampled_from(kind) if issubclass(kind, enum.Enum) else events_of(kind)


def events_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values_of(fields[name]) for name in kind.__struct_fields__})


EVENTS = st.one_of(*(events_of(kind) for kind in typing.get_args(AnyEvent)))
TOLD = st.builds(Telemetry, FIGURES | st.floats(0, 2e9), st.sampled_from(Part), NUMBERS, EVENTS)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(told=st.lists(TOLD, max_size=25), seen=st.integers(0, 25))
def test_no_event_crashes_page_summary_report_or_progress(told: list[Telemetry], seen: int) -> None:
    page, state, cursor = (
        DashboardState("night", DashboardSettings(series_points=16)),
        RunState(series_points=16),
        StateCursor(),
    )
    for number, one in enumerate(told):
        page.apply(one)
        state.apply(one)
        if number == seen:
            _, cursor = page.update(cursor, now_s=0.0)
    for viewer in (cursor, StateCursor()):
        update, _ = page.update(viewer, now_s=0.0)
        json.loads(update.model_dump_json(), parse_constant=pytest.fail)
    metrics_text(page)
    describe(state)
    summary = json.loads(json.dumps(summarise(state), allow_nan=False))
    headline(summary)
    judge(summary)
    assert summary["frames"]["acquired"] == update.present.frames.acquired
    assert len(summary["perspectives"]) == sum(
        bool(row.newest or row.ground_truth) for row in state.perspectives.rows.all()
    )


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(told=st.lists(TOLD, min_size=5, max_size=25))
def test_no_event_crashes_the_figures_of_the_report(told: list[Telemetry]) -> None:
    state = RunState(series_points=16).apply_all(told)
    for figure in (loss_plot(state), step_plot(state)):
        assert figure is None or figure.startswith("<svg")
    summary = json.loads(json.dumps(summarise(state), allow_nan=False))
    for metric in ("psnr_db", "ssim"):
        quality_plot(summary, metric, metric)
    residual_plot(summary)


def test_what_is_kept_stays_bounded_whatever_comes() -> None:
    page = DashboardState("night", DashboardSettings())
    huge = dict.fromkeys(range(20000), 0.5)
    for number in range(300):
        page.apply(telemetry(ValidationLoss(number, number, huge, 0.5, 0.5)))
        page.apply(telemetry(TaskAccuracies(number, number, huge, huge)))
        page.apply(telemetry(of_rank(10**9 + number, BufferReport(9, 9, "tcp", 0.5, 1.0, 1.0))))
        page.apply(telemetry(of_rank(-number - 1, RankCounts(9, 9, 9, 9))))
    page.apply(telemetry(ClassificationInfo("x", [["a"]] * 10_000, [1], 3, 32)))
    page.apply(telemetry(TaskScores(10**9, 1, 1, 0.5, 0.5, 1, 1)))
    update, _ = page.update(StateCursor(), now_s=0.0)
    assert len(update.validation) == 256
    assert max(len(row.losses) for row in update.validation) == 1000
    assert len(update.perspectives) == 1000
    assert (update.present.buffer, update.present.frames.trained) == ([], 0)
    assert update.present.classification is not None
    assert len(update.present.classification.tasks) <= 200
    assert len(update.model_dump_json()) < 20e6


def test_the_oldest_rows_go_first_and_are_counted_also_after_a_resume() -> None:
    state = RunState()
    for number in range(10_050):
        state.apply(telemetry(ValidationLoss(number, number, {number: 0.5}, 0.5, 0.5)))
    state.apply(telemetry(TrainingResumed(10_000)))
    for number in range(10_001, 10_101):
        state.apply(telemetry(ValidationLoss(number, number, {number: 0.4}, 0.4, 0.5)))
    rows = state.perspectives.rows
    assert sorted(row.index for row in rows.all()) == list(range(101, 10_101))
    assert rows.forgotten == summarise(state)["forgotten"]["perspectives"] == 101
    assert sorted(row.step for row in state.training.validation.all()) == [*range(9_794 + 51, 10_101)]


STEPS = (10, 20, 30, 40)


def before_the_resume() -> Iterator[AnyEvent]:
    yield ClassificationInfo("digits", [["0"], ["1"], ["2"], ["3"]], [9, 9, 9, 9], 1, 8)
    for task, step in enumerate(STEPS):
        yield TrainingStep(step, 1.0 / step, None, None, 1e-3, 16 * step, 24 * step, 100.0)
        yield StepBreakdown(step, float(step), 1.0, 1.0, 1.0, 1.0)
        yield ValidationLoss(task, step, dict.fromkeys(range(task + 1), 1.0 / step), 1.0 / step, 0.7)
        yield TaskAccuracies(
            task, step, dict.fromkeys(range(task + 1), step / 100), dict.fromkeys(range(task + 1), 0.9)
        )


def stage(events: Iterable[AnyEvent]) -> tuple[Any, dict[str, Any], RunState]:
    page, state = DashboardState("night", DashboardSettings()), RunState()
    for time_s, event in enumerate(events):
        page.apply(telemetry(event, float(time_s)))
        state.apply(telemetry(event, float(time_s)))
    return page.update(StateCursor(), now_s=0.0)[0], summarise(state), state


def test_after_a_resume_page_and_summary_know_nothing_of_the_steps_that_were_undone() -> None:
    update, summary, state = stage([*before_the_resume(), TrainingResumed(25)])
    assert update.present.training.step == summary["training"]["steps"] == 20
    assert update.present.training.loss == 1 / 20
    assert update.series["training"].columns["step"] == [10.0, 20.0]
    assert update.series["steps"].columns["load_ms"] == [10.0, 20.0]
    assert summary["training"]["step_ms"]["load_ms"] == 15.0
    assert update.series["validation"].columns["mean_over_seen"] == [1 / 10, 1 / 20]
    assert [row["mean_over_seen"] for row in summary["validation_loss"]] == [1 / 10, 1 / 20]
    assert [(row.after_perspective, row.step) for row in update.validation] == [(0, 10), (1, 20)]
    assert [row.validation_loss for row in update.perspectives] == [1 / 20, 1 / 20, None, None]
    accuracies = update.present.classification.accuracies
    assert (
        [list(row.top1.values()) for row in accuracies]
        == summary["classification"]["accuracy_top1"]
        == [[0.1], [0.2, 0.2]]
    )
    assert [row.now_top1 for row in update.present.classification.tasks] == [0.2, 0.2, None, None]
    assert describe(state).startswith("acquired 0, imaged 0, trained on 0, step 20, loss 0.050")


def test_training_that_goes_on_after_a_resume_counts_in_both() -> None:
    again = [TrainingStep(26, 0.03, None, None, 1e-3, 400, 600, 100.0), TaskAccuracies(2, 30, {2: 0.6}, {2: 0.9})]
    update, summary, _ = stage([*before_the_resume(), TrainingResumed(25), *again])
    assert update.present.training.step == summary["training"]["steps"] == 26
    assert update.series["training"].columns["step"] == [10.0, 20.0, 26.0]
    assert update.present.classification.accuracies[-1].top1 == {2: 0.6}
    assert summary["classification"]["accuracy_top1"][-1] == [None, None, 0.6]


def test_the_evaluation_before_the_one_that_was_undone_counts_again() -> None:
    first, second = ValidationLoss(2, 20, {2: 0.5}, 0.5, 0.7), ValidationLoss(2, 30, {2: 0.4}, 0.4, 0.7)
    update, summary, _ = stage([first, second, TrainingResumed(25)])
    assert [row.losses for row in update.validation] == [{2: 0.5}]
    assert update.perspectives[0].validation_loss == 0.5
    assert [row["step"] for row in summary["validation_loss"]] == [20]


def test_a_viewer_that_saw_the_undone_steps_is_told_to_forget_them() -> None:
    page = DashboardState("night", DashboardSettings())
    for event in before_the_resume():
        page.apply(telemetry(event))
    seen, cursor = page.update(StateCursor(), now_s=0.0)
    page.apply(telemetry(TrainingResumed(25)))
    update, cursor = page.update(cursor, now_s=0.0)
    assert update.validation_anew
    assert [row.after_perspective for row in update.validation] == [0, 1]
    losses = {row.perspective: row.validation_loss for row in update.perspectives}
    assert losses == {0: 1 / 20, 1: 1 / 20, 2: None, 3: None}
    patch, copy = update.series["training"], seen.series["training"].columns
    assert copy["step"][: patch.start] + patch.columns["step"] == [10.0, 20.0]
    again, _ = page.update(cursor, now_s=0.0)
    assert (again.validation_anew, again.validation) == (False, [])
