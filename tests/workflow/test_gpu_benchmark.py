"""The check for a first GPU: sections run on a CPU as far as they can; one that dies or hangs is one that failed."""

from __future__ import annotations

import torch
from bad_sections import breaks, dies, finds_something, hangs

from ptychoflow.workflow.benchmarks.gpu import bench
from ptychoflow.workflow.benchmarks.gpu.section import Setup, Status, carry_out
from ptychoflow.workflow.benchmarks.gpu.worker import Worker

CPU = torch.device("cpu")


def test_all_sections_that_need_no_gpu_pass_on_a_cpu() -> None:
    told = []
    measured = bench.bench_gpu(CPU, short=True, tell=lambda name, outcome: told.append((name, outcome.status)))
    assert [name for name, _ in told] == list(bench.SECTIONS)
    found = {case["section"]: case for case in measured["results"]}
    failed = {name: case["reason"] for name, case in found.items() if case["status"] == Status.FAIL}
    assert not failed
    skipped = {name for name, case in found.items() if case["status"] == Status.SKIPPED}
    assert skipped == {"recorded_passes", "copies", "two_ranks", "edge_rate"}
    assert found["strategies"]["derpp_float32_restored_off"] == 0.0
    assert len(measured["targets"]) == len(found) - len(skipped)
    assert all(target["met"] for target in measured["targets"])


def test_what_is_found_wrong_is_told_with_its_figures() -> None:
    setup = Setup(CPU, short=True)
    found = carry_out(finds_something, setup)
    assert (found.status, found.reason, found.figures) == (Status.FAIL, "it is wrong", {"off": 2.0})
    assert carry_out(breaks, setup).reason == "RuntimeError: device-side assert"


def test_a_section_that_hangs_or_dies_fails_and_the_next_one_runs() -> None:
    worker = Worker(Setup(CPU, short=True))
    try:
        hung, died = worker.carry_out(hangs, 0.5), worker.carry_out(dies, 60.0)
        assert (hung.status, hung.reason) == (Status.FAIL, "not done within 0.5 s")
        assert died.status is Status.FAIL
        assert "died" in died.reason
        assert worker.carry_out(finds_something, 60.0).reason == "it is wrong"
    finally:
        worker.end()
