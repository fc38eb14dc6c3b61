"""Two tasks of real digits: what rehearsal keeps, incremental training forgets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_folders import DIGITS_PX, write_digits

from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier_settings import ClassifierSettings, ModelFamily
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.record import TrainingRecord
from ptychoflow.trainer.pipelines.classification.offline.training import TaskTrainer
from ptychoflow.trainer.pipelines.classification.settings import (
    ClassificationSettings,
    ImageSettings,
    TaskScheduleSettings,
)
from ptychoflow.trainer.settings import BufferSettings, StrategyName
from ptychoflow.workflow.experiments.classification.plain import train_plainly

ALONE = Rank(rank=0, world_size=1, device=torch.device("cpu"), precision=Precision.FLOAT32)
EPOCHS = 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSettings:
    folder = write_digits(tmp_path_factory.mktemp("images") / "digits", classes=4, train=100, val=40)
    return ImageSettings(
        folder=folder,
        tasks=2,
        channels=1,
        stored_px=DIGITS_PX,
        image_px=DIGITS_PX,
        least_crop_area=1.0,
        flip=False,
        workers=0,
        keep_in_memory=True,
    )


def learning(strategy: StrategyName) -> ClassificationSettings:
    return ClassificationSettings(
        strategy=strategy,
        model=ClassifierSettings(family=ModelFamily.SMALL, width=8),
        epochs=EPOCHS,
        batch_size=10,
        learning_rate=0.05,
        schedule=TaskScheduleSettings(warm_up_epochs=0.2, decays=((3, 0.1),)),
        buffer=BufferSettings(capacity=60, representatives=10, candidates=10, transport="local"),
    )


def train(images: ImageSettings, strategy: StrategyName, *, from_scratch: bool = False) -> TrainingRecord:
    torch.set_num_threads(1)
    return TaskTrainer(
        learning(strategy), images, ImageData(images), rank=ALONE, seed=0, from_scratch=from_scratch
    ).run()


def test_incremental_training_learns_each_task_and_forgets_the_one_before(images: ImageSettings) -> None:
    record = train(images, StrategyName.INCREMENTAL)
    assert len(record.untrained.top1) == 2
    first, second = (row.top1 for row in record.after_task)
    assert first[0] > 0.9
    assert second[1] > 0.85
    assert second[0] < 0.3
    assert [(epoch.task, epoch.epoch) for epoch in record.epochs] == [(t, e) for t in (0, 1) for e in range(EPOCHS)]
    assert record.epochs[-1].average_top1 == pytest.approx(sum(second) / 2)
    assert all(row.top5 == [1.0, 1.0] for row in record.after_task), "five of four classes are always right"
    assert record.samples == 2 * EPOCHS * 200
    assert record.steps == 2 * EPOCHS * 20
    assert record.buffer is None


@pytest.mark.parametrize("strategy", [StrategyName.ER, StrategyName.DER, StrategyName.DERPP])
def test_rehearsal_keeps_the_first_task(images: ImageSettings, strategy: StrategyName) -> None:
    record = train(images, strategy)
    last = record.after_task[-1].top1
    assert min(last) > 0.6, "chance is a quarter, and what incremental training keeps of the first task is less"
    assert record.buffer is not None
    assert record.buffer["size"] == record.buffer["capacity"] == 60
    assert record.samples == pytest.approx(2 * 2 * EPOCHS * 200, abs=20), "every step has as many representatives"


def test_training_from_scratch_learns_all_tasks_seen_with_a_new_network_each_time(images: ImageSettings) -> None:
    record = train(images, StrategyName.INCREMENTAL, from_scratch=True)
    assert min(record.after_task[-1].top1) > 0.7
    assert record.samples == EPOCHS * (200 + 400)
    incremental = train(images, StrategyName.INCREMENTAL)
    assert record.after_task[0].top1 == incremental.after_task[0].top1, "the first task is the same"


@pytest.mark.parametrize("plain", [False, True])
def test_files_that_cannot_be_read_are_counted_whatever_they_are_for(
    images: ImageSettings, tmp_path: Path, plain: bool
) -> None:
    folder = write_digits(tmp_path / "digits", classes=2, train=20, val=5)
    for part, number in (("train", 3), ("val", 4)):
        (folder / part / "1" / f"{number:03d}.png").write_bytes(b"no image")
    images = images.model_copy(update={"folder": folder, "corrupt_share": 0.2})
    if plain:
        record = train_plainly(learning(StrategyName.ER), images, ImageData(images), rank=ALONE, seed=0, ranks=1)
    else:
        record = train(images, StrategyName.INCREMENTAL)
    assert record.corrupt == 2
