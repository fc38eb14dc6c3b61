"""What fixes an image classifier: the network, and how stored images become its input."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from ptychoflow.streaming.settings import Settings

Channels = Literal[1, 3]
SidePx = Annotated[int, Field(ge=1, le=8192)]


class ModelFamily(StrEnum):
    """Where a network comes from."""

    TORCHVISION = "torchvision"
    TIMM = "timm"
    SMALL = "small"
    """Four convolutions for small images, which train in seconds on a CPU."""


class ClassifierSettings(Settings):
    """The network; one output for all classes from the start."""

    family: ModelFamily = ModelFamily.TORCHVISION
    name: str = "resnet50"
    """As the family names it: resnet18, resnet50 ...; ghostnet_050 ... Not used by `small`."""
    small_images: bool = False
    """Of torchvision's ResNets: a first layer that does not shrink the image, for images of 28 to 64 px."""
    width: PositiveInt = 16
    """Of `small`: channels after the first convolution; each further one doubles them."""


class ViewSettings(Settings):
    """What the network sees of a stored image."""

    image_px: SidePx = 224
    """A crop, scaled to this size; in evaluation the middle."""
    least_crop_area: float = Field(default=0.08, gt=0, le=1)
    """Share of the stored image that a training crop covers at least, before what sticks out of it is cut off: above
    0.75 it may be less. 1 takes the middle, as evaluation does."""
    flip: bool = True
    """Mirror every other image in training."""


class ClassifierConfig(Settings):
    """Everything needed to rebuild a classifier before its tensors are loaded."""

    model: ClassifierSettings
    view: ViewSettings
    channels: Channels
    stored_px: SidePx
    """Side of the stored images, which are squares."""
    classes: Annotated[int, Field(ge=1, le=1_000_000)]
    """Of all tasks together."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.view.image_px > self.stored_px:
            raise ValueError("image_px must not be larger than stored_px")
        return self
