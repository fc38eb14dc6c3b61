"""The stream's benchmark measures both links beside bare sockets."""

from __future__ import annotations

from ptychoflow.workflow.benchmarks.stream import bench_stream


def test_both_links_are_measured_beside_bare_sockets() -> None:
    measured = bench_stream(frames=32, batch_frames=4, rounds=1)
    assert [case["link"] for case in measured["results"]] == ["files", "keys"]
    for case in measured["results"]:
        assert case["frames"] == 32
        assert case["ours_frames_per_cpu_s"] > 0
        assert case["bare_frames_per_cpu_s"] > 0
    names = [target["name"] for target in measured["targets"]]
    assert names == ["stream_ratio", "stream_cpu_ratio", "stream_with_keys_ratio", "stream_with_keys_cpu_ratio"]
