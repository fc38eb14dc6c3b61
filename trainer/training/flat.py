"""Tensors in one piece of memory, so that what is done with all of them is one operation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ALIGNED_ELEMENTS = 16
"""Where a tensor may begin: kernels read several elements at once."""


@torch.no_grad()
def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Move tensors of one dtype and device into one piece of memory, which they become views of; return it, (n,).

    There must be at least one. Each keeps its values and its memory layout. Between them lie a few zeros.
    """
    flat = _zeros_for(tensors)
    for tensor, view in zip(tensors, views(flat, tensors), strict=True):
        tensor.data = view.copy_(tensor)
    return flat


def flat_gradient(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Give parameters gradients of zero that are views of one tensor, (n,), which is returned; keep them there."""
    flat = _zeros_for(parameters)
    for parameter, view in zip(parameters, views(flat, parameters), strict=True):
        parameter.grad = view
    return flat


def _zeros_for(tensors: Sequence[Tensor]) -> Tensor:
    size = sum(_room(tensor) for tensor in tensors)
    return torch.zeros(size, dtype=tensors[0].dtype, device=tensors[0].device)


def views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return what of `flat`, (n,), belongs to each of `tensors`, which were put into one piece likewise."""
    parts, start = [], 0
    for tensor in tensors:
        strides = torch.empty_like(tensor, device="meta").stride()  # dense, also where the tensor's own are not
        parts.append(flat.as_strided(tensor.shape, strides, start))
        start += _room(tensor)
    return parts


def _room(tensor: Tensor) -> int:
    return -(-tensor.numel() // ALIGNED_ELEMENTS) * ALIGNED_ELEMENTS
