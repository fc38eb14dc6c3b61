"""The benchmark measures what it says, with real ranks."""

from __future__ import annotations

import json

import pytest

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.benchmarks.buffer import bench_buffer


@pytest.mark.parametrize("transport", ["tcp"])
def test_a_small_benchmark_is_complete(transport: str) -> None:
    measured = bench_buffer(
        ranks=(2,),
        transports=(transport,),
        precisions=("compact",),
        width=2,
        steps=2,
        pairs=3,
        draws=10,
        scaling=False,
    )
    assert json.loads(json.dumps(measured)) == measured
    (case,) = measured["results"]
    assert (case["ranks"], case["transport"], case["precision"]) == (2, transport, "compact")
    assert case["background_ms"] == pytest.approx(case["populate_ms"] + case["augment_ms"])
    assert 0 < case["waited_ms"] < case["step_with_ms"]
    assert 0 < case["step_cpu_slowdown_lower"] <= case["step_cpu_slowdown"] <= case["step_cpu_slowdown_upper"]
    drawn_bytes = 24 * 128 * 128 * 2 * 5
    assert case["draw_alone_gb_per_s"] == pytest.approx(drawn_bytes / case["draw_alone_ms"] / 1e6)
    assert case["memcpy_ms"] < case["draw_alone_ms"] < case["draw_insert_alone_ms"] * 2
    assert [target["name"] for target in measured["targets"]] == [
        "waited_fraction_of_step", "idle_cpu_fraction", "step_slowdown", "step_cpu_slowdown",
    ]  # fmt: skip
    for target in measured["targets"]:
        assert target["met"] == (target["value"] <= target["target"])


def test_a_gpu_that_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match='--device = "cuda", but this host has no usable GPU'):
        bench_buffer(ranks=(1,), width=0, scaling=False, device="cuda")
