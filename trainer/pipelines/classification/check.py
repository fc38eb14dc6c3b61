"""Whether images can be learnt with these settings, before anything is trained."""

from __future__ import annotations

from pathlib import Path

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.classifier_settings import ClassifierConfig
from ptychoflow.trainer.settings import LearningSettings
from ptychoflow.trainer.strategies.buffer_check import check_buffer


def check_classifier(network: ClassifierConfig, init_weights: Path | None = None) -> None:
    """Look at a network, and at the weights that it starts from; blocks for PyTorch, and until the network is made.

    Raises:
        UserError: there is a single class, no such network or none for such images, or weights that do not fit it.
    """
    if network.classes == 1:
        raise UserError("there is one class alone, so there is nothing to learn; two are needed at least")
    from ptychoflow.trainer.models.classifier import untrained_classifier  # noqa: PLC0415
    from ptychoflow.trainer.models.classifier_file import load_classifier  # noqa: PLC0415

    made = untrained_classifier(network)
    if init_weights is not None:
        load_classifier(made, init_weights)


def check_image_buffer(settings: LearningSettings, network: ClassifierConfig, *, ranks: int) -> None:
    """Look at the rehearsal buffer; loads PyTorch only where it is given in bytes, or UCX is asked for.

    Raises:
        UserError: as `check_buffer`.
    """

    def needed() -> int:
        from ptychoflow.trainer.pipelines.classification.pipeline import Classification  # noqa: PLC0415
        from ptychoflow.trainer.strategies.factory import item_bytes  # noqa: PLC0415

        classes, channels, stored_px = network.classes, network.channels, network.stored_px
        return item_bytes(settings.strategy, Classification(classes=classes, channels=channels, stored_px=stored_px))

    check_buffer(settings, ranks=ranks, classes=network.classes, item_bytes=needed)
