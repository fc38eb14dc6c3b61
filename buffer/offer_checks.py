"""Refuses an offer that cannot be stored, at the call that makes it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from buffer.policies import Policy
from buffer.schema import Schema


def check_offer(
    minibatch: Mapping[str, torch.Tensor],
    *,
    labels: torch.Tensor | None,
    scores: torch.Tensor | None,
    features: torch.Tensor | None,
    schema: Schema,
    classes: int,
    policy: Policy,
) -> int:
    """Number of samples in `minibatch`; ValueError says what does not fit the buffer's schema, classes or policy."""
    count = schema.check_batch(minibatch)
    _check_labels(labels, count, classes=classes, policy=policy)
    _check_extra("scores", scores, count, needed=policy.needs_scores, policy=policy, ndim=1)
    _check_extra("features", features, count, needed=policy.needs_features, policy=policy, ndim=2)
    return count


def _check_labels(labels: torch.Tensor | None, count: int, *, classes: int, policy: Policy) -> None:
    if labels is None:
        if classes > 1:
            raise ValueError(f"The buffer has {classes} classes, so offer() needs labels, one per sample.")
        return
    if tuple(labels.shape) != (count,) or labels.dtype not in (torch.int64, torch.int32, torch.uint8, torch.int16):
        raise ValueError(f"labels must be {count} integers, not {tuple(labels.shape)} of {labels.dtype}.")
    if count == 0:
        return
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (highest >= classes and not policy.open_classes):
        allowed = "0 or more" if policy.open_classes else f"0 to {classes - 1}"
        raise ValueError(f"A label is out of range: labels span {lowest} to {highest}; allowed are {allowed}.")


def _check_extra(
    name: str, values: torch.Tensor | None, count: int, *, needed: bool, policy: Policy, ndim: int
) -> None:
    if values is None:
        if needed:
            raise ValueError(f"{type(policy).__name__} needs {name}, one per sample: offer(..., {name}=...).")
        return
    if values.ndim != ndim or values.shape[0] != count or not values.is_floating_point():
        raise ValueError(
            f"{name} must be a floating-point tensor of {ndim} dimension(s) for {count} samples, "
            f"not {tuple(values.shape)} of {values.dtype}."
        )
