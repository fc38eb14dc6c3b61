"""The parts of the training on a stream of images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import cast

import torch

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import ClassificationStart
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.models.classifier_file import classifier_writer, load_classifier
from ptychoflow.trainer.models.classifier_settings import Channels, ClassifierConfig, ViewSettings
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.checkpointing import RememberingAlone
from ptychoflow.trainer.online.ingest import Arrivals
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.recipe import Recipe
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.classification.callback import ClassificationCallback
from ptychoflow.trainer.pipelines.classification.pipeline import Classification
from ptychoflow.trainer.pipelines.classification.settings import ClassificationTrainerSettings
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class ClassificationRecipe(Recipe[ImageClassifier]):
    """Images and labels.

    Args:
        settings: model, view, periods.
        start: announces images and classes.
        arrivals: the stream.
        rank: this process.
        seed: of a new network.

    Raises:
        UserError: the network would see more than the images show.
    """

    own: Mapping[str, RememberingAlone] = {}

    def __init__(
        self,
        settings: ClassificationTrainerSettings,
        start: ClassificationStart,
        *,
        arrivals: Arrivals,
        rank: Rank,
        seed: int,
    ) -> None:
        if settings.image_px > start.stored_px:
            raise UserError(
                f"trainer.image_px is {settings.image_px}, but the images that come have {start.stored_px} px; "
                "lower it, or raise source.stored_px"
            )
        self._settings, self._arrivals, self._rank, self._seed = settings, arrivals, rank, seed
        self.pipeline = Classification(classes=start.classes, channels=start.channels, stored_px=start.stored_px)
        self._config = ClassifierConfig(
            model=settings.model,
            view=ViewSettings(image_px=settings.image_px, least_crop_area=settings.least_crop_area, flip=settings.flip),
            channels=cast(Channels, start.channels),
            stored_px=start.stored_px,
            classes=start.classes,
        )

    def network(self) -> ImageClassifier:
        """Return the network that training starts from."""
        torch.manual_seed(self._seed)
        network = ImageClassifier(self._config)
        if self._settings.init_weights is not None:
            load_classifier(network, self._settings.init_weights)
            log.info("training starts from %s", self._settings.init_weights)
        return network

    def describe(self, network: ImageClassifier) -> str:
        """Return network, view, shapes and classes."""
        return network.config.model_dump_json()

    def initial(self) -> Writer:
        """Return what writes the weights that training starts from."""
        return classifier_writer(self.network())

    def outcome(
        self, learner: Learner[ImageClassifier], *, publication: Publication | None, report: StepReport
    ) -> ClassificationCallback:
        """Return what measures accuracies."""
        return ClassificationCallback(
            self._settings,
            arrivals=self._arrivals,
            learner=learner,
            rank=self._rank,
            publication=publication,
            report=report,
        )
