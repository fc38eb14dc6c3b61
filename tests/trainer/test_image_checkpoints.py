"""A training on images that is broken off and goes on from its checkpoint, on as many ranks or on others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_folders import DIGITS_PX, write_digits
from ranks_in_processes import run_in_ranks

from ptychoflow.trainer.checkpoints.checkpoint import newest
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier_settings import ClassifierSettings, ModelFamily
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.evaluation import AccuracyEvaluator
from ptychoflow.trainer.pipelines.classification.offline.record import TrainingRecord
from ptychoflow.trainer.pipelines.classification.offline.training import TaskTrainer
from ptychoflow.trainer.pipelines.classification.settings import (
    ClassificationSettings,
    ImageSettings,
    TaskScheduleSettings,
)
from ptychoflow.trainer.settings import BufferSettings, OptimizerKind, OptimizerSettings, StrategyName
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints

ALONE = Rank(rank=0, world_size=1, device=torch.device("cpu"), precision=Precision.FLOAT32)
EPOCHS = 3


class BrokenOff(Exception):
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSettings:
    folder = write_digits(tmp_path_factory.mktemp("images") / "digits", classes=4, train=40, val=30)
    (folder / "train" / "0" / "000.png").write_bytes(b"not an image")
    return ImageSettings(
        folder=folder,
        tasks=2,
        channels=1,
        stored_px=DIGITS_PX,
        image_px=DIGITS_PX,
        least_crop_area=0.7,
        flip=False,
        workers=0,
        corrupt_share=0.02,
    )


def train(
    images: ImageSettings,
    folder: Path,
    strategy: StrategyName,
    *,
    every: int = 1,
    from_scratch: bool = False,
    rank: Rank = ALONE,
) -> TrainingRecord:
    settings = ClassificationSettings(
        strategy=strategy,
        model=ClassifierSettings(family=ModelFamily.SMALL, width=4),
        epochs=EPOCHS,
        batch_size=9,
        learning_rate=0.05,
        schedule=TaskScheduleSettings(warm_up_epochs=0.5, decays=((2, 0.1),)),
        optimizer=OptimizerSettings(kind=OptimizerKind.SGD, accumulate=2),
        buffer=BufferSettings(capacity=40, representatives=9, candidates=9, transport="local"),
    )
    torch.set_num_threads(1)
    checkpoints = SectionCheckpoints(folder, rank, every)
    return TaskTrainer(
        settings, images, ImageData(images), rank=rank, seed=0, from_scratch=from_scratch, checkpoints=checkpoints
    ).run()


@pytest.fixture
def break_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return what makes the evaluation with a number, counted from the untrained network's, raise `BrokenOff`."""
    evaluate = AccuracyEvaluator.evaluate

    def broken(number: int) -> None:
        left = iter(range(number))

        def evaluate_or_break(self: AccuracyEvaluator, *args: object, **options: object) -> object:
            if next(left, None) is None:
                monkeypatch.setattr(AccuracyEvaluator, "evaluate", evaluate)
                raise BrokenOff
            return evaluate(self, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(AccuracyEvaluator, "evaluate", evaluate_or_break)

    return broken


@pytest.mark.parametrize("epoch", [2, 4, 5])
def test_what_was_broken_off_goes_on_as_if_nothing_had_been(
    images: ImageSettings, break_off: Callable[[int], None], tmp_path: Path, epoch: int
) -> None:
    """An epoch has nine minibatches, of which two make a step: gradients wait at the end of each odd epoch."""
    whole = train(images, tmp_path / "whole", StrategyName.INCREMENTAL)
    break_off(1 + epoch)
    with pytest.raises(BrokenOff):
        train(images, tmp_path / "broken", StrategyName.INCREMENTAL)
    found = train(images, tmp_path / "broken", StrategyName.INCREMENTAL)
    assert (whole.starts, found.starts) == ([1], [1, 1])
    assert found.untrained == whole.untrained
    assert found.after_task == whole.after_task
    averages = [[(e.task, e.epoch, e.average_top1) for e in record.epochs] for record in (found, whole)]
    assert averages[0] == averages[1]
    assert (found.steps, found.samples, found.corrupt) == (whole.steps, whole.samples, 1)
    assert [epoch.seconds for epoch in found.epochs] == sorted(epoch.seconds for epoch in found.epochs)


def test_rehearsal_goes_on_with_what_it_remembers(
    images: ImageSettings, break_off: Callable[[int], None], tmp_path: Path
) -> None:
    """The draw that was under way when the checkpoint was taken is another one; all else is the same."""
    whole = train(images, tmp_path / "whole", StrategyName.DERPP)
    break_off(1 + 5)
    with pytest.raises(BrokenOff):
        train(images, tmp_path / "broken", StrategyName.DERPP)
    (folder,) = (tmp_path / "broken").glob("step-*5")
    assert folder.name == "step-00000045"
    found = train(images, tmp_path / "broken", StrategyName.DERPP)
    assert found.after_task[0] == whole.after_task[0]
    assert found.after_task[1].top1 == pytest.approx(whole.after_task[1].top1, abs=0.1)
    assert (found.steps, found.samples) == (whole.steps, whole.samples)
    assert found.buffer is not None
    assert (found.buffer["size"], found.buffer["capacity"]) == (40, 40)


def test_training_from_scratch_goes_on_with_the_network_of_its_task(
    images: ImageSettings, break_off: Callable[[int], None], tmp_path: Path
) -> None:
    whole = train(images, tmp_path / "whole", StrategyName.INCREMENTAL, from_scratch=True)
    break_off(1 + 5)
    with pytest.raises(BrokenOff):
        train(images, tmp_path / "broken", StrategyName.INCREMENTAL, every=2, from_scratch=True)
    kept = sorted(path.name for path in (tmp_path / "broken").iterdir())
    assert kept == ["step-00000027", "step-00000063"], "after every task, and after each second epoch of one"
    found = train(images, tmp_path / "broken", StrategyName.INCREMENTAL, every=2, from_scratch=True)
    assert found.after_task == whole.after_task


def train_rank(number: int, images: ImageSettings, folder: Path) -> None:
    train(images, folder, StrategyName.INCREMENTAL, rank=replace(ALONE, rank=number, world_size=2))


def test_ranks_crop_their_images_differently(images: ImageSettings, tmp_path: Path) -> None:
    """They make as many draws each, so that their random numbers would be the same ones if they began alike."""
    folder = write_digits(tmp_path / "digits", classes=4, train=20, val=5)
    run_in_ranks(train_rank, 2, images.model_copy(update={"folder": folder}), tmp_path / "ranks")
    found = newest(tmp_path / "ranks")
    assert found is not None
    first, second = (shard["learner"]["random_state"] for shard in found.shards())
    assert not torch.equal(first, second)
