"""Counts, rates, latencies and when they are reported."""

from __future__ import annotations

import math
import time

import msgspec
import numpy as np
import pytest
from support import wait_until

from ptychoflow.inference_edge.counter import Cadence, EdgeCounter
from ptychoflow.inference_edge.frame_block import FrameBlock
from ptychoflow.inference_edge.frame_queue import Portion, ReceivedBatch, finish_portions
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.streaming.events import Part, Telemetry
from ptychoflow.streaming.telemetry_log import TelemetryLog


def test_counts_and_latencies_weigh_frames_not_batches():
    counter = EdgeCounter()
    counter.count_imaged(98, latency_s=1.0, now_s=100.0)
    counter.count_imaged(2, latency_s=60.0, now_s=100.0)
    event = counter.event()
    assert event.inferred == 100
    assert event.frame_to_image_p50_ms == pytest.approx(1_000)
    assert event.frame_to_image_p99_ms == pytest.approx(60_000, rel=0.1)


def test_latencies_are_not_known_before_a_frame_was_imaged_in_turn(tmp_path):
    """Not zero: an edge that is started again counts the frames of before."""
    counter = EdgeCounter()
    counter.inferred = 100
    counter.count_imaged(8, latency_s=60.0, now_s=100.0, in_turn=False)
    log = tmp_path / "telemetry.jsonl"
    log.write_bytes(msgspec.json.encode(Telemetry(7.0, Part.EDGE, 0, counter.event())) + b"\n")
    (kept,) = TelemetryLog(log)
    assert kept.event.inferred == 108
    assert math.isnan(kept.event.frame_to_image_p50_ms)
    assert math.isnan(kept.event.frame_to_image_p99_ms)


def test_the_rate_counts_frames_after_the_first_batch_and_needs_some_time():
    counter = EdgeCounter()
    assert counter.event().frames_per_s == 0
    for _ in range(5):
        counter.count_imaged(16, latency_s=0.1, now_s=100.0)
    assert counter.event().frames_per_s == 0
    counter.count_imaged(16, latency_s=0.1, now_s=102.0)
    assert counter.event().frames_per_s == pytest.approx(5 * 16 / 2.0)


@pytest.mark.parametrize("set_by_s", [-3600.0, 3600.0])
def test_the_rate_is_not_of_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch, set_by_s: float) -> None:
    counter, section, clock = EdgeCounter(), Perspective(0, 0.0), time.time
    block = FrameBlock(np.arange(16, dtype=np.int32), np.zeros(16, np.uint8))

    def image() -> None:
        finish_portions([Portion(ReceivedBatch(0, section, time.time(), 16), block)], counter=counter)

    image()
    monkeypatch.setattr(time, "time", lambda: clock() + set_by_s)
    began_s = time.monotonic()
    wait_until(lambda: image() or time.monotonic() > began_s + 1.0)
    assert counter.event().frames_per_s > 10


def test_only_changes_are_due_and_not_too_often():
    cadence = Cadence(period_s=1000)
    assert cadence.due("a", 1)
    assert not cadence.due("a", 2)
    assert cadence.due("b", 2)
    assert cadence.due("a", 2, at_once=True)
    assert not cadence.due("a", 2, at_once=True)
    always = Cadence(period_s=1e-9)
    assert always.due("a", 1)
    assert not always.due("a", 1)
    assert always.due("a", 2)
