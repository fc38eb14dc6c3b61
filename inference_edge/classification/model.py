"""Accepting a new version of the classifier, or refusing it with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptychoflow.inference_edge.device import choose_device
from ptychoflow.inference_edge.settings import InferenceSettings
from ptychoflow.streaming.messages import ClassificationStart, Weights
from ptychoflow.trainer.models.arithmetic import autocast, resolve
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.models.classifier_file import read_classifier
from ptychoflow.trainer.models.tensor_file import BadWeights

Images = npt.NDArray[np.uint8]
"""(n, channels, y, x)."""


@dataclass(frozen=True)
class Classifier:
    """A version that can be used."""

    version: int
    classify: Callable[[Images], Tensor]
    """Maps images to logits, float32 (n, classes) on the CPU."""


class ClassifierFactory:
    """Makes classifiers of weights files.

    Args:
        settings: device, precision, size of batches.

    Raises:
        UserError: CUDA is asked for and there is none.
    """

    def __init__(self, settings: InferenceSettings) -> None:
        self._device = choose_device(settings.device, gpu=settings.gpu)
        self._precision, self._batch_max = resolve(settings.precision, self._device), settings.batch_max

    def check(self, announced: Weights, data: bytes, *, start: ClassificationStart, images: Images) -> Classifier:
        """Check a weights file and make a classifier of it. May take some seconds; may run beside inference.

        Args:
            announced: the message that came with the file.
            data: the file's bytes; not trusted.
            start: announces the images that will be classified.
            images: the network must give finite logits for them.

        Raises:
            BadWeights: wrong digest, damaged file, a network for other images or classes, or logits that are not
                finite.
        """
        loaded = read_classifier(data, announced.sha256)
        config = loaded.manifest.network
        made_for = config.classes, config.channels, config.stored_px
        if made_for != (start.classes, start.channels, start.stored_px):
            raise BadWeights(
                f"made for {made_for[0]} classes of images with {made_for[1]} channels of {made_for[2]} px, these are "
                f"{start.classes} with {start.channels} of {start.stored_px} px"
            )
        classify = self._runner(loaded.network)
        if not classify(images).isfinite().all():
            raise BadWeights("the network's outputs are not finite on the last images")
        return Classifier(loaded.manifest.version, classify)

    def _runner(self, network: ImageClassifier) -> Callable[[Images], Tensor]:
        ready = network.to(self._device).to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def classify(images: Images) -> Tensor:
            parts = []
            for start in range(0, len(images), self._batch_max):
                part = torch.from_numpy(images[start : start + self._batch_max]).to(self._device)
                with autocast(self._precision, self._device):
                    parts.append(ready(part)[0].float().cpu())
            return torch.cat(parts)

        return classify


def blank_images(start: ClassificationStart) -> Images:
    """Return one grey image, for when none has come yet."""
    return np.full((1, start.channels, start.stored_px, start.stored_px), 128, np.uint8)
