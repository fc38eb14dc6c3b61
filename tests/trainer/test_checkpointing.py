"""When a checkpoint is taken, and which one training refuses to go on from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from support import wait_until
from trainer_streams import FRAME, TARGET, samples, scan_start

from ptychoflow.streaming.commands import CommandHub, CommandReceiver, CommandSender, WriteCheckpoint
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import Samples
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.checkpoints.checkpoint import newest
from ptychoflow.trainer.checkpoints.writer import CheckpointWriter
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.online.checkpointing import CheckpointContents, Checkpointing, restore
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.pipelines.choice import format_of
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.pipeline import Ptychography
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import BufferSettings, CheckpointSettings, OptimizerSettings, StrategyName
from ptychoflow.trainer.strategies.factory import make_strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.loop import TrainingLoop
from ptychoflow.trainer.training.schedule import ScanSchedule
from ptychoflow.trainer.training.time_report import TimeReport

CPU = torch.device("cpu")
PIPELINE = Ptychography(FRAME, TARGET)
LOOP = {"skipped_steps": 0, "finish": 0.0}


@dataclass
class Training:
    """All parts of a rank that are remembered, and steps on ten samples that have arrived."""

    folder: Path
    parts: CheckpointContents
    ingest: SampleIngest
    failures: list[str]

    def step(self) -> None:
        minibatch = self.ingest.queue.next_minibatch(2, timeout_s=0.0)
        batch = self.parts.strategy.gather(minibatch)
        assert batch is not None
        agreed = Agreed(2, len(batch), section_ended=False, stream_ended=False, stop=False, publish=False, finish=0.0)
        assert self.parts.learner.train(batch, self.parts.strategy, agreed) is not None
        self.parts.own["mean_patch"].accumulate(Patches(*batch.target), first=2)
        self.ingest.queue.mark_trained()

    def checkpointing(self, commands: CommandReceiver | None = None, every_s: float = 1000.0) -> Checkpointing:
        writer = CheckpointWriter(self.folder, rank=0, world_size=1, keep=2, on_failure=self.failures.append)
        settings = CheckpointSettings(every_s=every_s)
        return Checkpointing(settings, self.parts, ingest=self.ingest, writer=writer, rank=0, commands=commands)


def training(folder: Path, *, capacity: int = 20, accumulate: int = 1) -> Training:
    torch.manual_seed(len(list(folder.iterdir())))
    config = NetworkConfig(model=ModelSettings(width=4, levels=2), frame_shape_px=FRAME, target_shape_px=TARGET)
    buffer = BufferSettings(capacity=capacity, representatives=2, candidates=2, transport="local")
    optimizer = OptimizerSettings(accumulate=accumulate)
    settings = TrainerSettings(strategy=StrategyName.ER, buffer=buffer, optimizer=optimizer)
    schedule = ScanSchedule(settings.schedule, settings.learning_rate)
    learner = Learner(
        FrameNetwork(config), PIPELINE, settings, schedule=schedule, device=CPU, precision=Precision.FLOAT32
    )
    strategy = make_strategy(settings, PIPELINE, device=CPU, seed=0)
    ingest = SampleIngest(format_of, queue_samples=100, until_checkpoint=True)
    ingest.route_message(0, scan_start(), {})
    ingest.route_message(1, Samples(perspective=0), samples(range(10)))
    parts = CheckpointContents(
        {"network": "small"}, {}, learner, strategy, {"mean_patch": MeanPatch(TARGET, device=CPU)}
    )
    return Training(folder, parts, ingest, [])


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[Training]:
    one = training(tmp_path)
    yield one
    assert one.parts.strategy.buffer is not None
    one.parts.strategy.buffer.close()
    assert one.failures == []


def test_a_checkpoint_is_taken_when_a_person_asks_and_only_if_something_was_learnt_since(
    trained: Training, network: NetworkSettings
) -> None:
    with (
        closing(CommandHub(network)),
        closing(CommandSender(network)) as person,
        closing(CommandReceiver(network)) as commands,
    ):
        checkpointing = trained.checkpointing(commands)
        trained.step()
        assert not checkpointing.is_due()

        def due_when_asked() -> bool:
            person.send(WriteCheckpoint())
            return checkpointing.is_due()

        wait_until(due_when_asked)
        checkpointing.save(LOOP)
        checkpointing.finish(LOOP, stopped=False)
        found = newest(trained.folder)
        assert found is not None
        assert found.step == 1
        person.send(WriteCheckpoint())
        assert not checkpointing.is_due(), "no step was made since"


def test_a_checkpoint_is_due_after_its_period_or_when_wanted(trained: Training) -> None:
    often, seldom = trained.checkpointing(every_s=1e-6), trained.checkpointing()
    assert not often.is_due()
    trained.step()
    assert often.is_due()
    assert not seldom.is_due()
    seldom.request()
    assert seldom.is_due()


def test_everything_that_was_learnt_comes_back(trained: Training, tmp_path: Path) -> None:
    checkpointing = trained.checkpointing()
    for _ in range(4):
        trained.step()
    checkpointing.finish({"skipped_steps": 2, "finish": 0.25}, stopped=True)
    assert trained.ingest.queue.pop_acknowledgeable() == [], "a sample of the message is still to come"
    found = newest(tmp_path)
    assert found is not None
    resumed = training(tmp_path)
    loop = restore(found, resumed.parts, rank=0, ranks=1)
    assert dict(loop) == {"skipped_steps": 2, "finish": 0.25}
    buffer = resumed.parts.strategy.buffer
    assert buffer is not None
    with buffer:
        assert buffer.stats().size == 8
        assert resumed.parts.learner.steps == 4
        for then, now in zip(
            trained.parts.own["mean_patch"].on_this_rank(), resumed.parts.own["mean_patch"].on_this_rank(), strict=True
        ):
            torch.testing.assert_close(now, then, rtol=0, atol=0)
        resumed.step()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_last_checkpoint_holds_all_that_may_be_acknowledged(tmp_path: Path, steps: int) -> None:
    """Also minibatches whose gradients waited for others."""
    trained = training(tmp_path, accumulate=4)
    checkpointing = trained.checkpointing()
    for _ in range(steps):
        trained.step()
    trained.parts.learner.complete()  # as the loop does
    checkpointing.finish(LOOP, stopped=False)
    assert trained.parts.strategy.buffer is not None
    trained.parts.strategy.buffer.close()
    found = newest(tmp_path)
    assert found is not None
    (shard,) = found.shards()
    assert shard["stream"]["done"]["0"].tolist() == [[0, 2 * steps - 1]]
    assert found.step == -(-steps // 4)
    assert (trained.ingest.queue.pop_acknowledgeable() == [1]) == (steps == 5)


@pytest.mark.parametrize("stopped", [False, True])
def test_what_no_checkpoint_could_hold_is_let_go_of_with_the_stream_s_end(tmp_path: Path, stopped: bool) -> None:
    trained = training(tmp_path)
    trained.folder = tmp_path / "in-the-way"
    trained.folder.write_text("of a folder")
    checkpointing = trained.checkpointing()
    for _ in range(5):
        trained.step()
    checkpointing.finish(LOOP, stopped=stopped)
    assert trained.parts.strategy.buffer is not None
    trained.parts.strategy.buffer.close()
    assert len(trained.failures) == 1
    queue = trained.ingest.queue
    assert queue.pop_acknowledgeable() == [], "a trainer that is started again now would need it"
    queue.release_kept()
    assert queue.pop_acknowledgeable() == ([0] if stopped else [0, 1])
    assert queue.pop_acknowledgeable() == []


class Stopping(Callback):
    """Asks for the end of training after the first step."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def on_step_end(self, batch: Batch) -> None:
        self.stop.set()


def test_what_the_buffer_took_before_training_was_stopped_does_not_come_again(trained: Training) -> None:
    callback = Stopping()
    TrainingLoop(
        TrainerSettings(batch_size=2),
        stream=trained.ingest.queue,
        strategy=trained.parts.strategy,
        learner=trained.parts.learner,
        callback=callback,
        report=TimeReport(None),
        stop=callback.stop,
        checkpoints=trained.checkpointing(),
    ).run()
    found = newest(trained.folder)
    assert found is not None
    (shard,) = found.shards()
    stored, learnt = len(shard["buffer"]["ids"]), shard["stream"]["trained"]
    assert stored == learnt == 4, "of two minibatches, each of which is stored as a whole"
    assert shard["stream"]["done"]["0"].tolist() == [[0, 3]]


def test_a_checkpoint_of_another_model_or_buffer_is_refused_in_one_line(trained: Training, tmp_path: Path) -> None:
    checkpointing = trained.checkpointing()
    for _ in range(4):
        trained.step()
    checkpointing.finish(LOOP, stopped=True)
    found = newest(tmp_path)
    assert found is not None
    smaller = training(tmp_path, capacity=3)
    assert smaller.parts.strategy.buffer is not None
    with smaller.parts.strategy.buffer:
        with pytest.raises(UserError, match=r"the buffer's settings: .*there is room for 3; go on with the policy"):
            restore(found, smaller.parts, rank=0, ranks=1)
        other = replace(smaller.parts, identity={"network": "large"})
        with pytest.raises(UserError, match="of another run: its network is small, here it is large") as error:
            restore(found, other, rank=0, ranks=1)
    assert "\n" not in str(error.value)
