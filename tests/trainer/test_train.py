"""The trainer as a whole: real sockets, a publisher, and for two ranks real processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import free_ports, wait_until
from trainer_streams import samples, scan_start

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    BufferReport,
    RankCounts,
    Telemetry,
    TrainingStep,
    ValidationLoss,
    WarningRaised,
    WeightsPublished,
)
from ptychoflow.streaming.messages import FrameRole, PerspectiveEnd, Samples, ScanEnd, Weights
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.streaming.telemetry_log import TelemetryLog
from ptychoflow.streaming.weights_channel import WeightsClient, WeightsServer
from ptychoflow.trainer.checkpoints.checkpoint import newest
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings
from ptychoflow.trainer.models.weights_file import LoadedWeights, read_weights
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.service import train
from ptychoflow.trainer.settings import BufferSettings, Pace, StrategyName

TRAINING, VALIDATION = 45, 5
PERSPECTIVES = 3
BATCH = 7
"""Samples per message: neither minibatches nor perspectives are a multiple of it."""

SETTINGS = TrainerSettings(
    model=ModelSettings(width=4, levels=2),
    batch_size=4,
    buffer=BufferSettings(capacity=200, representatives=8, candidates=4, transport="local"),
    pace=Pace.STREAM,
    finish_s=5.0,
    publish_every_steps=5,
    wait_until_served_s=60.0,
    threads=1,
    learning_rate=3e-3,
)


def post_scan(publisher: Publisher) -> None:
    publisher.post_to_ranks(scan_start())
    for perspective in range(PERSPECTIVES):
        first = 1000 * perspective
        for start in range(first, first + TRAINING, BATCH):
            rows = range(start, min(start + BATCH, first + TRAINING))
            publisher.post_samples(Samples(perspective=perspective), samples(rows))
        held = samples(range(first + TRAINING, first + TRAINING + VALIDATION), role=FrameRole.VALIDATION)
        publisher.post_samples(Samples(perspective=perspective), held)
        publisher.post_to_ranks(PerspectiveEnd(perspective, angle_deg=0.0, frames=TRAINING + VALIDATION))
    publisher.post_to_ranks(ScanEnd(frames=PERSPECTIVES * (TRAINING + VALIDATION)))


class Run:
    """Publishes a scan, collects telemetry and fetches weights until the trainer has ended.

    With `end_after`, the end of the scan is posted once rank 0 has rehearsed that many samples.
    """

    def __init__(
        self,
        network: NetworkSettings,
        directory: Path,
        *,
        post: Callable[[Publisher], None] = post_scan,
        end_after: int | None = None,
    ) -> None:
        self.network, self.directory = network, directory
        self.final: LoadedWeights | None = None
        self.announced: list[Weights] = []
        self.unacknowledged = -1
        self._post, self._end_after = post, end_after
        self._end_due = threading.Event()

    def follow(self, alive: Callable[[], bool]) -> None:
        """Pump while the trainer is alive."""
        client = WeightsClient(self.network, edge="test")
        hub = TelemetryHub(self.network, jsonl=self.directory / "telemetry.jsonl", on_event=self._watch)
        with Publisher(self.network, spool_dir=self.directory, memory_bytes=1 << 24, edge=False) as publisher:
            self._post(publisher)
            while alive():
                publisher.pump(0.02)
                if self._end_due.is_set() and self._end_after is not None:
                    self._end_after = None
                    publisher.post_to_ranks(ScanEnd(frames=0))
                if (found := client.poll()) is not None:
                    weights, data = found
                    self.announced.append(weights)
                    loaded = read_weights(data, weights.sha256)
                    self.final = loaded if weights.final else self.final
            publisher.pump(0.5)
            self.unacknowledged = publisher.unacknowledged
        client.close()
        hub.close()

    def _watch(self, telemetry: Telemetry, _arrays: Arrays) -> None:
        event, enough = telemetry.event, self._end_after
        if enough is not None and isinstance(event, TrainingStep) and event.rehearsed_samples > enough:
            self._end_due.set()

    def events(self, kind: type[Any]) -> list[Any]:
        return [told.event for told in self.told(kind)]

    def told(self, kind: type[Any]) -> list[Telemetry]:
        """Return the events of a kind with who sent them."""
        return [told for told in TelemetryLog(self.directory / "telemetry.jsonl") if isinstance(told.event, kind)]


def train_here(settings: TrainerSettings, run: Run) -> Run:
    """Train in a thread of this process; what the thread raises is raised here."""
    context = RunContext("test", run.directory, 1)
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(train, settings, network=run.network, run=context, stop=threading.Event())
        run.follow(lambda: not future.done())
        future.result()
    return run


def train_rank(rank: int, ports: tuple[int, NetworkSettings], directory: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
    train(SETTINGS, network=ports[1], run=RunContext("test", directory, 1), stop=threading.Event())


def train_stopped_rank(rank: int, ports: tuple[int, NetworkSettings], directory: Path) -> None:
    """Train from initial weights, which only rank 0 publishes; only rank 1 is asked to stop, and no scan comes."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
    settings = SETTINGS.model_copy(update={"init_weights": directory / "weights", "wait_until_served_s": 0.0})
    stop = threading.Event()
    if rank == 1:
        stop.set()
    train(settings, network=ports[1], run=RunContext("test", directory, 1), stop=stop)


def test_a_rank_that_is_to_publish_initial_weights_waits_together_with_the_others(
    network: NetworkSettings, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=train_stopped_rank, args=(rank, (port, network), tmp_path)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    try:
        wait_until(lambda: not any(process.is_alive() for process in ranks), timeout_s=90.0)
    finally:
        for process in ranks:
            process.kill()
            process.join()
    assert [process.exitcode for process in ranks] == [0, 0]


def train_alone(network: NetworkSettings, directory: Path) -> None:
    train(SETTINGS, network=network, run=RunContext("test", directory, 1), stop=threading.Event())


def check(run: Run, *, ranks: int) -> None:
    counts = {told.rank: told.event for told in run.told(RankCounts)}
    assert sum(event.trained for event in counts.values()) == PERSPECTIVES * TRAINING, "no sample is skipped"
    assert sum(event.validation for event in counts.values()) == PERSPECTIVES * VALIDATION
    assert len(counts) == ranks
    assert run.unacknowledged == 0
    assert run.final is not None
    assert run.final.manifest.final
    assert not run.announced[-1].stopped
    losses = run.events(ValidationLoss)
    assert [event.after_perspective for event in losses] == [0, 1, 2, 2]
    assert [sorted(event.per_perspective) for event in losses] == [[0], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert losses[-1].mean_over_seen < 0.8 * losses[-1].constant
    assert run.final.manifest.validation_loss == pytest.approx(losses[-1].mean_over_seen)
    published = run.events(WeightsPublished)
    versions = [event.version for event in published]
    assert versions == list(range(1, len(published) + 1))
    assert [event.final for event in published] == [False] * (len(published) - 1) + [True]
    files = sorted(path.name for path in (run.directory / "weights").iterdir())
    assert files == [f"v{version:06d}.safetensors" for version in versions]
    read_weights((run.directory / "weights" / files[-1]).read_bytes(), published[-1].sha256)


@pytest.mark.parametrize("strategy", [StrategyName.ER, StrategyName.DERPP])
def test_one_rank_trains_on_every_sample_and_publishes(
    network: NetworkSettings, tmp_path: Path, strategy: StrategyName
) -> None:
    run = train_here(SETTINGS.model_copy(update={"strategy": strategy}), Run(network, tmp_path))
    check(run, ranks=1)
    steps = run.events(TrainingStep)
    assert steps[-1].stream_samples == PERSPECTIVES * TRAINING
    assert steps[-1].rehearsed_samples > PERSPECTIVES * TRAINING, "training went on after the end of the stream"
    assert run.events(BufferReport)[-1].size >= 100


def test_two_ranks_train_on_every_sample_together(network: NetworkSettings, tmp_path: Path) -> None:
    (master,) = free_ports(1)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=train_rank, args=(rank, (master, network), tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    run = Run(network, tmp_path)
    try:
        run.follow(lambda: any(process.is_alive() for process in processes))
    finally:
        for process in processes:
            process.kill() if process.is_alive() else process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    check(run, ranks=2)
    checkpoint = newest(RunFolder(tmp_path).checkpoints)
    assert checkpoint is not None
    first, second = (shard["learner"]["random_state"] for shard in checkpoint.shards())
    assert not torch.equal(first, second), "ranks do not draw alike"


def test_a_trainer_that_is_killed_while_its_final_weights_wait_is_started_again_and_ends(
    network: NetworkSettings, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    hub = TelemetryHub(network, jsonl=tmp_path / "telemetry.jsonl")

    def has_published_final() -> bool:
        log = TelemetryLog(tmp_path / "telemetry.jsonl")
        return any(isinstance(told.event, WeightsPublished) and told.event.final for told in log)

    with (
        closing(hub),
        Publisher(network, spool_dir=tmp_path, memory_bytes=1 << 24, edge=False) as publisher,
        closing(WeightsClient(network, edge="test")) as client,
    ):
        post_scan(publisher)
        killed = context.Process(target=train_alone, args=(network, tmp_path))
        again = context.Process(target=train_alone, args=(network, tmp_path))
        try:
            killed.start()
            wait_until(lambda: (publisher.pump(0.02), has_published_final())[1], timeout_s=60)
            until_s = time.monotonic() + 2.0
            while publisher.unacknowledged and time.monotonic() < until_s:
                publisher.pump(0.02)
            killed.kill()
            killed.join()
            again.start()
            wait_until(lambda: (publisher.pump(0.02), client.poll(), not again.is_alive())[2], timeout_s=90)
        finally:
            for process in (killed, again):
                if process.is_alive():
                    process.kill()
        publisher.pump(0.5)
        assert publisher.unacknowledged == 0
    assert again.exitcode == 0


def test_a_run_ends_whose_checkpoints_cannot_be_written(network: NetworkSettings, tmp_path: Path) -> None:
    RunFolder(tmp_path).checkpoints.write_text("in the way of a folder")
    run, stop = Run(network, tmp_path), threading.Event()
    settings = SETTINGS.model_copy(update={"finish_s": 0.5})
    until_s = time.monotonic() + 60.0
    with ThreadPoolExecutor(1) as executor:
        trained = executor.submit(train, settings, network=network, run=RunContext("test", tmp_path, 1), stop=stop)
        try:
            run.follow(lambda: not trained.done() and time.monotonic() < until_s)
            assert trained.done(), "the publisher waits for acknowledgements that never come"
        finally:
            stop.set()
        trained.result()
    assert run.unacknowledged == 0
    assert any("no checkpoint after step" in event.text for event in run.events(WarningRaised))
    assert run.final is not None


def test_incremental_training_uses_the_stream_alone(network: NetworkSettings, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"strategy": StrategyName.INCREMENTAL})
    run = train_here(settings, Run(network, tmp_path))
    assert run.events(RankCounts)[-1].trained == PERSPECTIVES * TRAINING
    assert not run.events(BufferReport)
    assert all(event.rehearsed_samples == 0 for event in run.events(TrainingStep))
    assert run.final is not None
    assert run.final.manifest.step == PERSPECTIVES * 12, "45 samples are 11 minibatches of 4 and one of 1"


def post_nothing(publisher: Publisher) -> None:
    publisher.post_to_ranks(scan_start())
    publisher.post_to_ranks(ScanEnd(frames=7))


def post_void_perspectives(publisher: Publisher) -> None:
    publisher.post_to_ranks(scan_start())
    for perspective in range(2):
        publisher.post_to_ranks(PerspectiveEnd(perspective, angle_deg=0.0, frames=7))
    publisher.post_to_ranks(ScanEnd(frames=14))


def post_what_cannot_be_learnt(publisher: Publisher) -> None:
    publisher.post_to_ranks(scan_start())
    broken = samples(range(3))
    broken["phase"][:] = np.nan
    publisher.post_samples(Samples(perspective=0), broken)
    publisher.post_samples(Samples(perspective=0), samples([3], role=FrameRole.VALIDATION))
    publisher.post_to_ranks(PerspectiveEnd(0, angle_deg=0.0, frames=4))
    publisher.post_to_ranks(ScanEnd(frames=4))


@pytest.mark.parametrize(
    ("post", "other_warnings"), [(post_nothing, 0), (post_void_perspectives, 0), (post_what_cannot_be_learnt, 2)]
)
def test_a_scan_without_samples_leaves_untrained_weights_and_a_warning_and_fails(
    network: NetworkSettings, tmp_path: Path, post: Callable[[Publisher], None], other_warnings: int
) -> None:
    run = Run(network, tmp_path, post=post)
    with pytest.raises(UserError, match=r"^no sample arrived: ") as error:
        train_here(SETTINGS, run)
    assert "\n" not in str(error.value)
    assert run.final is not None
    assert run.final.manifest.step == 0
    untrained = ["untrained" in event.text for event in run.events(WarningRaised)]
    assert sorted(untrained) == [False] * other_warnings + [True]


def test_initial_weights_need_no_samples(network: NetworkSettings, tmp_path: Path) -> None:
    first = train_here(SETTINGS, Run(network, tmp_path))
    assert first.final is not None
    weights = sorted((tmp_path / "weights").glob("v*.safetensors"))[-1]
    (tmp_path / "second").mkdir()
    settings = SETTINGS.model_copy(update={"init_weights": weights})
    run = train_here(settings, Run(network, tmp_path / "second", post=post_void_perspectives))
    assert run.final is not None
    assert run.unacknowledged == 0
    for name, tensor in first.final.network.state_dict().items():
        torch.testing.assert_close(run.final.network.state_dict()[name], tensor, rtol=0, atol=0)


def test_forgetting_and_samples_that_are_not_finite_are_told(network: NetworkSettings, tmp_path: Path) -> None:
    def post_contradictions(publisher: Publisher) -> None:
        publisher.post_to_ranks(scan_start())
        broken = samples(range(300, 305))
        broken["phase"][:] = np.nan
        publisher.post_samples(Samples(perspective=0), broken)
        for perspective, brightness in enumerate((0.0, 1.0)):
            for first, count, role in ((0, 240, FrameRole.TRAIN), (240, 5, FrameRole.VALIDATION)):
                some = samples(range(first, first + count), role=role)
                some["amplitude"] += np.float16(brightness)
                publisher.post_samples(Samples(perspective=perspective), some)
            publisher.post_to_ranks(PerspectiveEnd(perspective, angle_deg=0.0, frames=245))
        publisher.post_to_ranks(ScanEnd(frames=495))

    settings = SETTINGS.model_copy(
        update={"strategy": StrategyName.INCREMENTAL, "averaging": 0.0, "worsening_perspectives": 1, "finish_s": 0.0}
    )
    run = train_here(settings, Run(network, tmp_path, post=post_contradictions))
    counts = run.events(RankCounts)[-1]
    assert (counts.trained, counts.validation, counts.rejected) == (480, 10, 5)
    warnings = [event.text for event in run.events(WarningRaised)]
    assert sum("refuses samples and goes on without them: values that are not finite" in text for text in warnings) == 1
    assert sum("validation has worsened after the last perspective" in text for text in warnings) == 1


@pytest.mark.parametrize("strategy", [StrategyName.ER, StrategyName.DER])
def test_continuous_pace_trains_on_while_the_stream_is_silent(
    network: NetworkSettings, tmp_path: Path, strategy: StrategyName
) -> None:
    def post_some(publisher: Publisher) -> None:
        publisher.post_to_ranks(scan_start())
        for start in range(0, 20, 10):
            bright = samples(range(start, start + 10))
            bright["amplitude"] += np.float16(2.0)
            publisher.post_samples(Samples(perspective=0), bright)

    settings = SETTINGS.model_copy(update={"strategy": strategy, "pace": Pace.CONTINUOUS, "finish_s": 0.0})
    run = train_here(settings, Run(network, tmp_path, post=post_some, end_after=400))
    assert run.events(RankCounts)[-1].trained == 20
    assert run.events(TrainingStep)[-1].rehearsed_samples > 400
    assert any("exceed trainer.amplitude_scale = 2" in event.text for event in run.events(WarningRaised))


def test_stop_ends_training_in_order(network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[Weights] = []
    publish = WeightsServer.publish

    def note(server: WeightsServer, weights: Weights, data: bytes) -> None:
        announced.append(weights)
        publish(server, weights, data)

    monkeypatch.setattr(WeightsServer, "publish", note)
    stop = threading.Event()
    settings = SETTINGS.model_copy(update={"pace": Pace.CONTINUOUS, "finish_s": 1000.0})
    context = RunContext("test", tmp_path, 1)
    thread = threading.Thread(target=train, args=(settings,), kwargs={"network": network, "run": context, "stop": stop})
    thread.start()
    client = WeightsClient(network, edge="test")
    with Publisher(network, spool_dir=tmp_path, memory_bytes=1 << 24, edge=False) as publisher:
        post_scan(publisher)
        while client.poll() is None:
            publisher.pump(0.02)
        stop.set()
        thread.join(10.0)
    client.close()
    assert not thread.is_alive()
    newest = sorted((tmp_path / "weights").iterdir())[-1]
    assert read_weights(newest.read_bytes()).manifest.final
    assert [(one.final, one.stopped) for one in announced[-2:]] == [(False, False), (True, True)]


def test_initial_weights_reach_an_edge_before_the_first_sample(network: NetworkSettings, tmp_path: Path) -> None:
    first = train_here(SETTINGS, Run(network, tmp_path))
    assert first.final is not None
    newest = sorted((tmp_path / "weights").glob("v*.safetensors"))[-1]
    stop = threading.Event()
    settings = SETTINGS.model_copy(update={"init_weights": newest})
    client = WeightsClient(network, edge="test")
    with (
        Publisher(network, spool_dir=tmp_path, memory_bytes=1 << 24, edge=False) as publisher,
        ThreadPoolExecutor(1) as executor,
    ):
        context = RunContext("second", tmp_path / "second", 1)
        future = executor.submit(train, settings, network=network, run=context, stop=stop)
        publisher.post_to_ranks(scan_start())
        found: list[tuple[Weights, bytes]] = []

        def served() -> bool:
            publisher.pump(0.02)
            found.extend(filter(None, [client.poll()]))
            return bool(found)

        wait_until(served)
        stop.set()
        future.result(timeout=30)
    client.close()
    weights, data = found[0]
    assert (weights.version, weights.step, weights.final) == (1, 0, False)
    served_state = read_weights(data, weights.sha256).network.state_dict()
    for name, tensor in first.final.network.state_dict().items():
        torch.testing.assert_close(served_state[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"buffer": BufferSettings(capacity_bytes=10)}, r"^trainer\.buffer: capacity_bytes 10 is too small"),
        ({"model": ModelSettings(levels=7), "head_start_s": 0.0}, "cannot map frames"),
    ],
)
def test_what_cannot_learn_the_scan_is_refused_when_it_is_announced(
    network: NetworkSettings, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    run = Run(network, tmp_path, post=lambda publisher: publisher.post_to_ranks(scan_start()))
    stop, until_s = threading.Event(), time.monotonic() + 60.0
    settings = SETTINGS.model_copy(update=changes)
    with ThreadPoolExecutor(1) as executor:
        context = RunContext("test", tmp_path, 1)
        future = executor.submit(train, settings, network=network, run=context, stop=stop)
        run.follow(lambda: not future.done() and time.monotonic() < until_s)
        stop.set()
        with pytest.raises(UserError, match=said):
            future.result()
