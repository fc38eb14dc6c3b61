"""The check for a first GPU: sections run on a CPU as far as they can; one that dies or hangs is one that failed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bad_sections import breaks, dies, dies_later, finds_something, hangs

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.eager import EagerBackend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import Prediction
from ptychoflow.inference_edge.backends.runner import ImmediateRunner, Runner
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.settings import StrategyName
from ptychoflow.trainer.strategies.incremental import Incremental
from ptychoflow.workflow.benchmarks.bare_loop import alone
from ptychoflow.workflow.benchmarks.gpu import bench, imaging, networks, training
from ptychoflow.workflow.benchmarks.gpu.section import Check, Setup, Status, carry_out
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


class RacingBackend(EagerBackend):
    """Gives the patches of the frames before these, as one whose copies race with its computing would."""

    name = BackendName.CUDA_GRAPH

    def prepare(self, network: FrameNetwork) -> Runner:
        run, before = super().prepare(network), [np.zeros(0)]

        def run_those_before(counts: np.ndarray) -> Prediction:
            last, before[0] = before[0], counts.copy()
            return run(last if last.shape == counts.shape else counts)

        return ImmediateRunner(run_those_before)


class ForgetfulBackend(EagerBackend):
    """Everything that it has made ready has the newest weights."""

    name = BackendName.CUDA_GRAPH

    def prepare(self, network: FrameNetwork) -> Runner:
        self.newest = super().prepare(network)
        return ImmediateRunner(self._run_newest)

    def _run_newest(self, counts: np.ndarray) -> Prediction:
        return self.newest(counts)


class FailingBackend(EagerBackend):
    name = BackendName.CUDA_GRAPH

    def prepare(self, network: FrameNetwork) -> Runner:
        raise RuntimeError("no kernel image is available")


@pytest.mark.parametrize(
    ("section", "backend", "reason"),
    [
        (imaging.backends, RacingBackend, "cuda_graph: phases of batches under way together are"),
        (imaging.backends, FailingBackend, "cuda_graph: RuntimeError: no kernel image is available"),
        (imaging.new_weights, ForgetfulBackend, "cuda_graph: batches came out wrong, by up to"),
        (imaging.new_weights, FailingBackend, "cuda_graph: RuntimeError: no kernel image is available"),
    ],
)
def test_a_backend_that_images_wrongly_fails_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, section: Check, backend: type[Backend], reason: str
) -> None:
    kinds = (backend, EagerBackend)
    made = [kind(CPU, Precision.FLOAT32, threads=1, batch_max=imaging.BATCH) for kind in kinds]
    monkeypatch.setattr(imaging, "_backends", lambda _: made)
    found = carry_out(section, Setup(CPU, short=True))
    assert found.status is Status.FAIL
    assert found.reason.startswith(reason)
    assert found.figures["eager_off_rad"] < 1e-3


def test_learning_from_frames_of_before_gives_another_loss() -> None:
    """As replayed passes would whose inputs are not renewed: the limits of the sections would see it."""
    setup = Setup(CPU, short=False)
    last = []
    for stale in (False, True):
        settings = networks.settings_of(setup, StrategyName.INCREMENTAL)
        learner = networks.learner_of(setup, settings, device=CPU, precision=Precision.FLOAT32)
        strategy = Incremental(networks.pipeline_of(setup), device=CPU)
        first = networks.batch_of(setup, 0, CPU)
        for number in range(training.STEPS):
            batch = networks.batch_of(setup, number, CPU)
            share = learner.train(replace(batch, inputs=first.inputs) if stale else batch, strategy, alone(batch))
        last.append(share.sum().item())
    assert last[1] - last[0] > 2 * training.OFF_BFLOAT16


def test_a_process_that_dies_between_sections_fails_the_next_one_alone() -> None:
    worker = Worker(Setup(CPU, short=True))
    try:
        assert worker.carry_out(finds_something, 60.0).reason == "it is wrong"
        worker.end()
        assert worker.carry_out(dies_later, 60.0).status is Status.PASS
        worker._process.join(60.0)
        assert worker.carry_out(finds_something, 60.0).status is Status.FAIL
        assert worker.carry_out(finds_something, 60.0).reason == "it is wrong"
    finally:
        worker.end()


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
