"""Configuration of the image pipeline."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ptychoflow.acquisition.classification.settings import ImageFolderSettings
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.models.classifier_settings import (
    Channels,
    ClassifierConfig,
    ClassifierSettings,
    ViewSettings,
)
from ptychoflow.trainer.settings import LearningSettings, OptimizerKind, OptimizerSettings, Pace, StreamSettings


class Sharding(StrEnum):
    """Which rank sees which samples of a task."""

    SAMPLES = "samples"
    """Every rank a random part, another one in each epoch."""
    CLASSES = "classes"
    """Every rank all samples of some of the classes."""


class LoaderName(StrEnum):
    """What reads image files."""

    TORCHVISION = "torchvision"
    """Worker processes with Pillow, as torchvision reads folders."""
    DALI = "dali"
    """NVIDIA DALI, on the GPU that trains; needs the extra `dali`."""


class ImageSettings(ImageFolderSettings, ViewSettings):
    """The `[images]` section: data set, tasks, and how files become the network's input."""

    loader: LoaderName = LoaderName.TORCHVISION
    """Both give the same squares, within a grey level or two; `dali` leaves out which parts are transparent."""
    workers: NonNegativeInt = 4
    """Processes per rank that read files; 0 reads them in the training process. Threads of `dali`."""
    keep_in_memory: bool = False
    """Keep every image once it is read, in each process that reads; not with `dali`."""
    sharding: Sharding = Sharding.SAMPLES

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.image_px > self.stored_px:
            raise ValueError("image_px must not be larger than stored_px")
        if self.loader is LoaderName.DALI and self.keep_in_memory:
            raise ValueError("keep_in_memory needs loader = 'torchvision': DALI reads every file each time")
        return self

    def classifier(self, model: ClassifierSettings, *, classes: int) -> ClassifierConfig:
        """Return what fixes a network for these images."""
        view = ViewSettings(image_px=self.image_px, least_crop_area=self.least_crop_area, flip=self.flip)
        return ClassifierConfig(
            model=model, view=view, channels=self.channels, stored_px=self.stored_px, classes=classes
        )


class TaskScheduleSettings(Settings):
    """Learning rate within a task, as a factor of `learning_rate`; it starts again with each task."""

    warm_up_epochs: NonNegativeFloat = 5.0
    """The rate rises linearly over so many epochs."""
    decays: tuple[tuple[NonNegativeFloat, PositiveFloat], ...] = ((21.0, 0.5), (26.0, 0.05), (28.0, 0.01))
    """(epoch, factor from then on)."""
    largest_scale: PositiveInt = 64
    """The rate is multiplied by the number of ranks (times `optimizer.accumulate`), at most by this."""


class ClassificationSettings(LearningSettings):
    """The `[training]` section."""

    SECTION: ClassVar[str] = "training"
    model: ClassifierSettings = Field(default_factory=ClassifierSettings)
    epochs: PositiveInt = 30
    """Times that each task's samples are seen."""
    schedule: TaskScheduleSettings = Field(default_factory=TaskScheduleSettings)
    buffer_share: float = Field(default=0.3, gt=0, le=1)
    """Capacity of the buffer over all ranks, as a share of the training set. It replaces `buffer.capacity`; a
    `buffer.capacity_bytes` replaces it."""
    pace: Pace = Pace.STREAM
    finish_s: NonNegativeFloat = 0.0
    averaging: float = Field(default=0.0, ge=0, lt=1)
    batch_size: PositiveInt = 56
    learning_rate: PositiveFloat = 0.0125
    optimizer: OptimizerSettings = Field(
        default_factory=lambda: OptimizerSettings(kind=OptimizerKind.SGD, momentum=0.9, weight_decay=1e-5)
    )


class ClassificationTrainerSettings(StreamSettings, ViewSettings):
    """The `[trainer]` section of a stream of images."""

    model: ClassifierSettings = Field(default_factory=ClassifierSettings)

    def classifier(self, *, classes: int, channels: Channels, stored_px: int) -> ClassifierConfig:
        """Return what fixes a network for images of `channels`, squares of `stored_px`."""
        view = ViewSettings(image_px=self.image_px, least_crop_area=self.least_crop_area, flip=self.flip)
        return ClassifierConfig(model=self.model, view=view, channels=channels, stored_px=stored_px, classes=classes)
