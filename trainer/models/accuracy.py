"""Whether a classifier is right."""

from __future__ import annotations

import torch
from torch import Tensor


def is_correct(logits: Tensor, label: Tensor, *, top: int) -> Tensor:
    """Return bool (n,): whether `label`, int64 (n,), is among the `top` likeliest of `logits` (n, classes)."""
    likeliest = logits.topk(min(top, logits.shape[1]), dim=1).indices
    return torch.eq(likeliest, label.unsqueeze(1)).any(dim=1)
