"""The edge's benchmark, with a network so small that little is measured but everything runs."""

from __future__ import annotations

import pytest

from ptychoflow.inference_edge.backends.eager import EagerBackend
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings
from ptychoflow.workflow.benchmarks import edge


def test_the_edge_is_measured_beside_the_bare_model_and_phase_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MODELS": {"tiny": ModelSettings(width=2)},
        "ROUNDS": 2,
        "STEADY_FRAMES_MIN": 16,
        "PTYCHI_FRAMES": 25,
        "STITCHED_PATCHES": 256,
        "usable_backends": lambda *_: [EagerBackend],
    }.items():
        monkeypatch.setattr(edge, name, value)
    measured = edge.bench_edge(batch_frames=4, seconds=0.1, frames_px=(32,))
    case, stitching = measured["results"]
    assert (case["model"], case["backend"], case["frame_px"], case["batch_frames"]) == ("tiny", "eager", 32, 4)
    for figure in ("frames_per_s", "bare_frames_per_s", "cpu_ratio_to_bare", "ptychi_frame_ms"):
        assert case[figure] > 0
    assert 0 < case["frame_to_image_p50_ms"] <= case["frame_to_image_p99_ms"]
    assert stitching["patches_per_s"] > 0
    targets = {target["name"]: target for target in measured["targets"]}
    assert targets.keys() == {
        "edge_ratio_to_bare_tiny_32px_eager",
        "edge_p99_to_two_batches_and_50_ms_tiny_32px_eager",
        "edge_stitched_patches_per_s",
    }
    ratio = targets["edge_ratio_to_bare_tiny_32px_eager"]
    assert ratio["value"] == case["ratio_to_bare"]
    assert ratio["met"] == (ratio["value"] >= 0.9)
    assert targets["edge_p99_to_two_batches_and_50_ms_tiny_32px_eager"]["value"] == pytest.approx(
        case["frame_to_image_p99_ms"] / (2 * case["bare_batch_ms"] + 50)
    )
