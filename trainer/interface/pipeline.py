"""What strategies, the learner and the buffer need to know of samples; they know nothing else of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor

from ptychoflow.buffer import Field, Schema
from ptychoflow.trainer.interface.loss import Elementwise

Minibatch = dict[str, Tensor]
"""Samples of the stream: one tensor (n, *shape) per field."""

Output = tuple[Tensor, ...]
"""What a network makes of n samples: one tensor (n, *shape) per head. Truth and stored activations look alike."""


class Pipeline(ABC):
    """The fields of a sample, and how far an output is from what it should be."""

    network_input: str
    """Field that the network sees."""
    targets: tuple[str, ...]
    """Fields that hold the ground truth."""
    activations: tuple[str, ...]
    """Fields that keep what the network made of a sample when it was learnt: one per head, in the output's order."""
    fields: Mapping[str, Field]
    """Shape and dtype of every field of a sample, its activations included."""
    classes: int = 1
    """Classes that share the buffer equally."""

    def schema(self, names: tuple[str, ...]) -> Schema:
        """Return the schema of a buffer that stores the fields `names`."""
        return Schema(**{name: self.fields[name] for name in names})

    def labels(self, minibatch: Minibatch) -> Tensor | None:
        """Return the class of every sample, int64 (n,), for the buffer; None where there is one class."""
        return None

    @abstractmethod
    def error(self, output: Output, target: Output) -> Tensor:
        """Return how far outputs are from the ground truth: float32 (n, terms); the loss is the sum of the terms."""

    @abstractmethod
    def distance(self, output: Output, activation: Output, elementwise: Elementwise) -> Tensor:
        """Return how far outputs are from stored activations: float32 (n, terms)."""
