from __future__ import annotations

import pytest

from ptychoflow.workflow.benchmarks import intake


def test_taking_samples_in_is_measured_beside_copying_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ROUNDS", 2)
    measured = intake.bench_intake(frame_px=16, messages=9)
    (case,), (target,) = measured["results"], measured["targets"]
    assert case["bytes_per_sample"] == 3 * 2 * 16 * 16
    assert case["ours_samples_per_cpu_s"] > 0
    assert case["bare_samples_per_cpu_s"] > 0
    assert target["name"] == "intake_samples_per_core_s"
    assert target["met"] == (target["value"] >= 20_000)
