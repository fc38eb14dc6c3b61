"""Metrics as Prometheus reads them."""

from __future__ import annotations

import math

from prometheus_client.parser import text_string_to_metric_families
from speaking import Said, of, of_rank, telemetry
from telemetry_samples import acquired, quality, step

from ptychoflow.dashboard.metrics import metrics_text
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.streaming.events import (
    AnyEvent,
    BufferReport,
    EdgeCounts,
    HeldOutScores,
    Part,
    PartState,
    PartStatus,
    RankCounts,
)


def samples(*events: Said | AnyEvent) -> dict[tuple[str, tuple[str, ...]], float]:
    state = DashboardState("night", DashboardSettings())
    for event in events:
        state.apply(telemetry(event, 7.0))
    families = text_string_to_metric_families(metrics_text(state).decode())
    return {(s.name, tuple(sorted(s.labels.values()))): s.value for family in families for s in family.samples}


def test_metrics_say_what_the_page_says() -> None:
    values = samples(
        acquired(100),
        of_rank(0, RankCounts(60, 8, 0, 0)),
        step(12, loss=0.25),
        of_rank(1, BufferReport(100, 30, "ucx", 0.9, 1.0, 10.0)),
        HeldOutScores(4, 50, quality(12.0), quality(8.0), 1),
        of(Part.EDGE, PartStatus(PartState.FAILED, "x")),
    )
    assert values["ptychoflow_frames_acquired_total", ()] == 100
    assert values["ptychoflow_frames_ended_total", ("trained",)] == 60
    assert values["ptychoflow_frames_unaccounted", ()] == 100 - 60 - 8 - 20
    assert values["ptychoflow_training_steps_total", ()] == 12
    assert values["ptychoflow_training_loss", ()] == 0.25
    assert values["ptychoflow_buffer_items", ("1",)] == 30
    assert values["ptychoflow_held_out_psnr_db", ("4", "phase")] == 12.0
    assert (values["ptychoflow_part_up", ("edge",)], values["ptychoflow_part_up", ("trainer",)]) == (0, 1)
    assert values["ptychoflow_part_heard_seconds", ("trainer",)] == 7.0


def test_what_is_not_known_yet_is_left_out() -> None:
    names = {name for name, _ in samples()}
    assert "ptychoflow_frames_acquired_total" in names
    assert not {"ptychoflow_training_loss", "ptychoflow_edge_frames_per_second"} & names


def test_a_latency_that_is_not_known_is_left_out() -> None:
    names = {name for name, _ in samples(EdgeCounts(100, 0, 0, 0.0, math.nan, math.nan))}
    assert "ptychoflow_edge_frames_per_second" in names
    assert "ptychoflow_frame_to_image_seconds" not in names
