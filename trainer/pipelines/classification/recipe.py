"""The parts of the training on a stream of images."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import ClassificationStart
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier import ImageClassifier, untrained_classifier
from ptychoflow.trainer.models.classifier_file import classifier_writer, load_classifier
from ptychoflow.trainer.models.classifier_settings import Channels
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.recipe import Recipe
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.classification.callback import ClassificationCallback
from ptychoflow.trainer.pipelines.classification.pipeline import Classification
from ptychoflow.trainer.pipelines.classification.settings import ClassificationTrainerSettings
from ptychoflow.trainer.training.learner import Learner


class ClassificationRecipe(Recipe[ImageClassifier]):
    """Images and labels.

    Args:
        settings: model, view, periods.
        start: announces images and classes.
        ingest: the stream.
        rank: this process.
        seed: of a new network.

    Raises:
        UserError: the network would see more than the images show.
    """

    def __init__(
        self,
        settings: ClassificationTrainerSettings,
        start: ClassificationStart,
        *,
        ingest: SampleIngest,
        rank: Rank,
        seed: int,
    ) -> None:
        if settings.image_px > start.stored_px:
            raise UserError(
                f"trainer.image_px is {settings.image_px}, but the images that come have {start.stored_px} px; "
                "lower it, or raise source.stored_px"
            )
        self._settings = settings
        self.pipeline = Classification(classes=start.classes, channels=start.channels, stored_px=start.stored_px)
        self._config = settings.classifier(
            classes=start.classes, channels=cast(Channels, start.channels), stored_px=start.stored_px
        )
        super().__init__(settings, self._config, ingest=ingest, rank=rank, seed=seed)

    def _untrained(self) -> ImageClassifier:
        return untrained_classifier(self._config)

    def _load(self, network: ImageClassifier, path: Path) -> None:
        load_classifier(network, path)

    def initial_weights_writer(self) -> Writer:
        """Return what writes the weights that training starts from."""
        return classifier_writer(self.network())

    def callback(
        self, learner: Learner[ImageClassifier], *, publication: Publication | None, report: StepReport
    ) -> ClassificationCallback:
        """Return what measures accuracies."""
        return ClassificationCallback(
            self._settings,
            ingest=self._ingest,
            learner=learner,
            rank=self._rank,
            publication=publication,
            report=report,
        )
