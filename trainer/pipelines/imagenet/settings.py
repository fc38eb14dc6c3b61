"""Configuration of the image pipeline."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from streaming.settings import Settings
from trainer.settings import LearningSettings, OptimizerKind, OptimizerSettings, Pace


class Sharding(StrEnum):
    """Which rank sees which samples of a task."""

    SAMPLES = "samples"
    """Every rank a random part, another one in each epoch."""
    CLASSES = "classes"
    """Every rank all samples of some of the classes."""


class ModelFamily(StrEnum):
    """Where a network comes from."""

    TORCHVISION = "torchvision"
    TIMM = "timm"
    SMALL = "small"
    """Four convolutions for small images, which train in seconds on a CPU."""


class ImageSettings(Settings):
    """The `[images]` section: data set, tasks, and how files become the network's input."""

    folder: Path = Path("images")
    """Holds `train/<class>/*` and `val/<class>/*`."""
    tasks: PositiveInt = 4
    """Classes are dealt to this many tasks, as evenly as possible, in an order that the seed decides."""
    channels: Literal[1, 3] = 3
    """1 turns colours into grey."""
    stored_px: PositiveInt = 256
    """Images are scaled and cropped to squares of this size when they are read; so the buffer keeps them."""
    image_px: PositiveInt = 224
    """What the network sees: a crop, scaled to this size; in evaluation the middle."""
    least_crop_area: float = Field(default=0.08, gt=0, le=1)
    """Share of the stored image that a training crop covers at least; 1 takes the middle, as evaluation does."""
    flip: bool = True
    """Mirror every other image in training."""
    workers: NonNegativeInt = 4
    """Processes per rank that read files; 0 reads them in the training process."""
    keep_in_memory: bool = False
    """Keep every image once it is read, in each process that reads."""
    corrupt_share: float = Field(default=0.01, ge=0, le=1)
    """Files that cannot be read are named, left out and counted; more than this share of the set ends the run."""
    sharding: Sharding = Sharding.SAMPLES

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.image_px > self.stored_px:
            raise ValueError("image_px must not be larger than stored_px")
        return self


class ClassifierSettings(Settings):
    """The network; one output for all classes from the start."""

    family: ModelFamily = ModelFamily.TORCHVISION
    name: str = "resnet50"
    """As the family names it: resnet18, resnet50 ...; ghostnet_050 ... Not used by `small`."""
    small_images: bool = False
    """Of torchvision's ResNets: a first layer that does not shrink the image, for images of 28 to 64 px."""
    width: PositiveInt = 16
    """Of `small`: channels after the first convolution; each further one doubles them."""


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
