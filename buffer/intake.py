"""Copies the candidates of a minibatch into free rows, so that the caller may reuse its tensors at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from buffer.background import Offer
from buffer.free_rows import FreeRows
from buffer.memory import Rows
from buffer.policies import Candidate


def take_in(
    batch: Mapping[str, torch.Tensor],
    *,
    chosen: npt.NDArray[np.int64],
    labels: torch.Tensor | None,
    scores: torch.Tensor | None,
    features: torch.Tensor | None,
    rows: Rows,
    free: FreeRows,
) -> Offer:
    """Copy the samples `chosen` of `batch`; blocks only while two earlier offers are not inserted yet."""
    targets = free.reserve(len(chosen))
    batch = {name: tensor.detach() for name, tensor in batch.items()}
    rows.write(targets, batch, chosen.tolist())
    index = torch.from_numpy(chosen)
    candidates = _candidates(
        len(chosen),
        None if labels is None else labels[index],
        None if scores is None else scores.detach()[index],
        None if features is None else features.detach()[index],
    )
    return Offer(targets, lambda: candidates)


def _candidates(
    count: int, labels: torch.Tensor | None, scores: torch.Tensor | None, features: torch.Tensor | None
) -> list[Candidate]:
    label_list = [0] * count if labels is None else labels.tolist()
    score_list = [0.0] * count if scores is None else scores.tolist()
    feature_list = [None] * count if features is None else list(features.to("cpu", torch.float32, copy=True).numpy())
    return [Candidate(*known) for known in zip(label_list, score_list, feature_list, strict=True)]
