"""Image classification as strategies and the learner see it."""

from __future__ import annotations

from torch import Tensor, nn

from ptychoflow.buffer import Field
from ptychoflow.trainer.interface.loss import Elementwise
from ptychoflow.trainer.interface.pipeline import Minibatch, Output, Pipeline


class Classification(Pipeline):
    """Images and their classes; the network's output is one logit per class, which is also what it is held to.

    Args:
        classes: of all tasks together.
        channels: of an image.
        stored_px: images are squares of this size.
    """

    network_input = "image"
    targets = ("label",)
    activations = ("activation_logits",)

    def __init__(self, *, classes: int, channels: int, stored_px: int) -> None:
        self.classes = classes
        self.fields = {
            "image": Field((channels, stored_px, stored_px), "uint8"),
            "label": Field((), "int64"),
            "activation_logits": Field((classes,), "float16"),
        }

    def labels(self, minibatch: Minibatch) -> Tensor:
        """Return the classes, which share the buffer."""
        return minibatch["label"]

    def error(self, output: Output, target: Output) -> Tensor:
        """Return the cross-entropy over all classes, (n, 1)."""
        return nn.functional.cross_entropy(output[0].float(), target[0], reduction="none").unsqueeze(1)

    def distance(self, output: Output, activation: Output, elementwise: Elementwise) -> Tensor:
        """Return the mean distance over logits, (n, 1)."""
        return elementwise(output[0].float(), activation[0]).mean(dim=1, keepdim=True)
