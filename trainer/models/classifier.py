"""The network as the trainer uses it: stored images in, logits out."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.augmentation import crop_at_random, crop_middle
from ptychoflow.trainer.models.classifier_settings import ClassifierConfig, ClassifierSettings, ModelFamily

MEAN, SPREAD = 0.45, 0.225
"""Of natural images, all colours alike."""


class Logits(NamedTuple):
    """One number per class, float (n, classes)."""

    logits: Tensor


class ImageClassifier(nn.Module):
    """Augmentation and normalisation followed by a network.

    In training every pass sees another crop of each image, so a representative is never the same picture twice. In
    evaluation it sees the middle.

    Raises:
        UserError: the family has no network of that name, or not for such images.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.network = make_network(config.model, channels=config.channels, classes=config.classes)

    def forward(self, images: Tensor) -> Logits:
        """Classify stored images, uint8 (n, channels, stored_px, stored_px)."""
        return Logits(self.network(self.prepare(images)))

    def prepare(self, images: Tensor) -> Tensor:
        """Return the network's input, float32 (n, channels, image_px, image_px)."""
        pixels = (images.float() / 255.0 - MEAN) / SPREAD
        view = self.config.view
        if self.training and view.least_crop_area < 1.0:
            # where pixels lie needs more digits than bfloat16 has
            with torch.autocast(images.device.type, enabled=False):
                return crop_at_random(pixels, px=view.image_px, least_area=view.least_crop_area, flip=view.flip)
        pixels = crop_middle(pixels, px=view.image_px)
        return _mirror_some(pixels) if self.training and view.flip else pixels


def untrained_classifier(config: ClassifierConfig) -> ImageClassifier:
    """Return a new network, once a copy of it was seen to take such images; random numbers go on as if it was not.

    Raises:
        UserError: as `ImageClassifier`; or the network takes no images of this size, or gives other outputs.
    """
    network = ImageClassifier(config)
    images = torch.zeros(2, config.channels, config.stored_px, config.stored_px, dtype=torch.uint8)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs: object = copy.deepcopy(network)(images)[0]
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _unfit(config, str(error).split("\n", 1)[0].rstrip(".")) from error
    if not isinstance(outputs, Tensor):
        raise _unfit(config, "in training it has further outputs")
    return network


def _unfit(config: ClassifierConfig, reason: str) -> UserError:
    return UserError(
        f"model.name: {config.model.name} cannot be trained on images of {config.view.image_px} px: {reason}; "
        "choose another model, or images of another size"
    )


def _mirror_some(images: Tensor) -> Tensor:
    mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def make_network(settings: ClassifierSettings, *, channels: int, classes: int) -> nn.Module:
    """Return an untrained network from images (n, channels, y, x) to logits (n, classes).

    Raises:
        UserError: the family has no network of that name, or not for such images.
    """
    match settings.family:
        case ModelFamily.SMALL:
            return _small(settings.width, channels=channels, classes=classes)
        case ModelFamily.TIMM:
            return _timm(settings.name, channels=channels, classes=classes)
        case ModelFamily.TORCHVISION:
            return _torchvision(settings, channels=channels, classes=classes)


def _timm(name: str, *, channels: int, classes: int) -> nn.Module:
    import timm  # noqa: PLC0415 it takes seconds to load

    if not timm.is_model(name):
        raise UserError(f"model.name: timm has no model {name!r}; timm.list_models() names all")
    network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels)
    return network


def _torchvision(settings: ClassifierSettings, *, channels: int, classes: int) -> nn.Module:
    from torchvision import models  # noqa: PLC0415 likewise

    if settings.name not in models.list_models(models):
        raise UserError(f"model.name: torchvision has no model {settings.name!r}; resnet18 and resnet50 are two it has")
    network: nn.Module = models.get_model(settings.name, num_classes=classes)
    if channels != 3 or settings.small_images:
        if not isinstance(network, models.ResNet):
            raise UserError(f"model: {settings.name} takes images of three channels and ordinary size only")
        _replace_stem(network, settings, channels=channels)
    return network


def _replace_stem(network: nn.Module, settings: ClassifierSettings, *, channels: int) -> None:
    if settings.small_images:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    else:
        network.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)


def _small(width: int, *, channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = channels
    for level in range(4):
        after = width * 2 ** min(level, 2)
        stride = 1 if level == 0 else 2
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
