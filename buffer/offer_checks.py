"""Refuses an offer that cannot be stored, at the call that makes it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ptychoflow.buffer.names import DrawName
from ptychoflow.buffer.policies import Policy
from ptychoflow.buffer.schema import Schema

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)


class OfferCheck:
    """Knows what the buffer expects; every ValueError says what does not fit."""

    def __init__(self, schema: Schema, *, classes: int, policy: Policy, draw: DrawName) -> None:
        self._schema = schema
        self._classes = classes
        self._policy = policy
        self._need_scores = f"A {type(policy).__name__}" if policy.needs_scores else None
        self._need_features = f"A {type(policy).__name__}" if policy.needs_features else None
        if draw == "score":
            self._need_scores = "A draw by score"
        self._feature_size: int | None = None

    def expect_features(self, size: int) -> None:
        """Items that were restored have features of this size, as those to come must have."""
        self._feature_size = size

    def count(
        self,
        minibatch: Mapping[str, torch.Tensor],
        *,
        labels: torch.Tensor | None,
        scores: torch.Tensor | None,
        features: torch.Tensor | None,
    ) -> int:
        """The number of samples offered, all of which can be stored."""
        count = self._schema.check_batch(minibatch)
        self._check_labels(labels, count)
        self._check_floats("scores", scores, (count,), needed_by=self._need_scores)
        size = self._feature_size if self._feature_size or features is None else features.shape[-1]
        self._check_floats("features", features, (count, size), needed_by=self._need_features)
        self._feature_size = size
        return count

    def _check_labels(self, labels: torch.Tensor | None, count: int) -> None:
        if labels is None:
            if self._classes > 1:
                raise ValueError(f"The buffer has {self._classes} classes, so offer() needs labels, one per sample.")
            return
        if not isinstance(labels, torch.Tensor):
            raise ValueError(f"labels must be {count} integers in a tensor, not a {type(labels).__name__}.")
        if tuple(labels.shape) != (count,) or labels.dtype not in _INTEGERS:
            raise ValueError(f"labels must be {count} integers, not {tuple(labels.shape)} of {labels.dtype}.")
        if count == 0:
            return
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or (highest >= self._classes and not self._policy.open_classes):
            allowed = "0 or more" if self._policy.open_classes else f"0 to {self._classes - 1}"
            raise ValueError(f"A label is out of range: labels span {lowest} to {highest}; allowed are {allowed}.")

    def _check_floats(
        self, name: str, values: torch.Tensor | None, shape: tuple[int | None, ...], *, needed_by: str | None
    ) -> None:
        if values is None:
            if needed_by is not None:
                raise ValueError(f"{needed_by} needs {name}, one per sample: offer(..., {name}=...).")
            return
        check_floats(name, values, shape)


def check_floats(name: str, values: torch.Tensor, shape: tuple[int | None, ...]) -> None:
    """ValueError unless these are floats of that shape, and finite where asking does not wait for a GPU."""
    if tuple(values.shape) != shape or not values.is_floating_point():
        raise ValueError(f"{name} must be floats of shape {shape}, not {tuple(values.shape)} of {values.dtype}.")
    if values.device.type == "cpu" and not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} hold a value that is not finite.")
