"""The weights file of an image classifier: a `tensor_file` with the state dict of the `ImageClassifier`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.models.classifier_settings import ClassifierConfig
from ptychoflow.trainer.models.earlier_weights import load_earlier_weights
from ptychoflow.trainer.models.tensor_file import Stamp, Writer, empty_network, pack, unpack


class ClassifierManifest(Stamp):
    """What a weights file says about itself; its validation loss is the cross-entropy."""

    network: ClassifierConfig


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier in evaluation mode, with its manifest."""

    manifest: ClassifierManifest
    network: ImageClassifier


def classifier_writer(network: ImageClassifier) -> Writer:
    """Return what writes a network that nobody changes any more."""
    return lambda stamp: pack(network.state_dict(), ClassifierManifest(network=network.config, **stamp.model_dump()))


def read_classifier(data: bytes, sha256: str | None = None) -> LoadedClassifier:
    """Rebuild the network of a weights file.

    Args:
        data: the file's bytes; they are not trusted.
        sha256: the digest that they must have, if it is known.

    Raises:
        BadWeights: wrong digest, not the weights of a classifier, or tensors that do not fit it exactly.
    """
    manifest, tensors = unpack(data, sha256, kind=ClassifierManifest, expected=_expected)
    network = empty_network(lambda: ImageClassifier(manifest.network))
    network.load_state_dict(tensors, assign=True)
    return LoadedClassifier(manifest, network.eval())


def _expected(manifest: ClassifierManifest) -> dict[str, Tensor]:
    return dict(empty_network(lambda: ImageClassifier(manifest.network)).state_dict())


def load_classifier(network: ImageClassifier, path: Path) -> None:
    """Load the weights of an earlier run into `network`.

    Raises:
        UserError: the file cannot be read or belongs to another network.
    """
    advice = "set trainer and source accordingly"
    load_earlier_weights(network, path, config=network.config, read=read_classifier, advice=advice)
