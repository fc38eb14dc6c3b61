"""The edge's benchmark, with a network so small that little is measured but everything runs."""

from __future__ import annotations

import pytest

from ptychoflow.inference_edge.backends.eager import EagerBackend
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings
from ptychoflow.workflow.benchmarks import edge, edge_alone, edge_stitching


def test_the_edge_is_measured_beside_the_bare_model_and_phase_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MODELS": {"tiny": ModelSettings(width=2)},
        "ROUNDS": 2,
        "SCORED_ROUNDS": 1,
        "BACKENDS_S": 0.05,
        "STEADY_FRAMES_MIN": 16,
        "STEADY_S": 0.1,
        "PTYCHI_FRAMES": 25,
        "usable_backends": lambda *_: [EagerBackend],
    }.items():
        monkeypatch.setattr(edge, name, value)
    for name, value in {"ROUNDS": 2, "PATCHES": {8: 128}, "available_processors": lambda: 2}.items():
        monkeypatch.setattr(edge_stitching, name, value)
    for name, value in {
        "ROUNDS": 2,
        "FRAMES": {32: 256},
        "BATCH_FRAMES": (8,),
        "available_processors": lambda: 2,
    }.items():
        monkeypatch.setattr(edge_alone, name, value)
    measured = edge.bench_edge(batch_frames=4, round_s=0.05, frames_px=(32,))
    case, beside_network, stitched_beside, alone, shared = measured["results"]
    assert (case["model"], case["backend"], case["frame_px"], case["batch_frames"]) == ("tiny", "eager", 32, 4)
    for figure in ("ours_frames_per_s", "bare_frames_per_s", "ours_frames_per_cpu_s", "ptychi_frame_ms"):
        assert case[figure] > 0
    assert case["scored_ratio"].median > 0
    assert case["scored_cpu_ratio"].median > 0
    assert 0 < case["scored_fraction"] <= 1, "frames were scored where the probe was known"
    assert 0 < case["frame_to_image_p50_ms"] <= case["frame_to_image_p99_ms"]
    assert 0 < beside_network["thread_us_per_frame"].median < beside_network["process_us_per_frame"].median
    assert beside_network["frames_per_s"].lower > 0
    assert (beside_network["stitching_threads"], beside_network["stitching_thread_us_per_frame"].median) == (1, 0)
    assert (stitched_beside["stitching_threads"], stitched_beside["stitching_thread_us_per_frame"].median > 0) == (
        2,
        True,
    )
    assert (alone["threads"], shared["threads"]) == (1, 2)
    assert alone["memory_patches_per_cpu_s"] > 0
    assert shared["two_images_patches_per_s"] > 0
    targets = {target["name"]: target for target in measured["targets"]}
    assert targets.keys() == {
        "edge_tiny_32px_ratio",
        "edge_tiny_32px_cpu_ratio",
        "edge_p99_to_two_batches_and_50_ms_tiny_32px",
        "edge_alone_32px_frames_per_thread_s",
        "edge_alone_32px_frames_per_thread_s_stitched_beside",
        "edge_stitched_8px_patches_per_core_s",
        "edge_stitched_8px_patches_per_s_two_threads",
    }
    for figure in ("ratio", "cpu_ratio"):
        median, lower, upper = case[figure]
        assert lower <= median <= upper
        target = targets[f"edge_tiny_32px_{figure}"]
        assert (target["value"], target["met"]) == (lower, lower >= 0.9), "the lower bound counts"
    assert targets["edge_p99_to_two_batches_and_50_ms_tiny_32px"]["value"] == pytest.approx(
        case["frame_to_image_p99_ms"] / (2 * case["bare_batch_ms"] + 50)
    )
