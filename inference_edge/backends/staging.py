"""Counts on their way to a network: as they come, until the device that computes with them has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Staging:
    """A buffer that is used again for every batch; pinned where a GPU fetches from it, which converts them itself.

    Args:
        device: what computes.
        frames: that come together usually; it grows for more.
    """

    def __init__(self, device: torch.device, frames: int) -> None:
        self._device, self._frames = device, frames
        self._buffer: Tensor | None = None

    def float32(self, counts: npt.NDArray[Any]) -> Tensor:
        """Return counts (n, y, x) of any real dtype as float32 on the device.

        Valid until the next call, and until the caller changes `counts`.
        """
        if self._device.type == "cpu" and counts.dtype == np.float32 and counts.flags.writeable:
            return torch.from_numpy(counts)
        # PyTorch computes with few kinds of unsigned integers, but converts all of them
        dtype = torch.float32 if self._device.type == "cpu" else torch.from_numpy(np.empty(0, counts.dtype)).dtype
        buffer = self._buffer
        if buffer is None or buffer.dtype != dtype or buffer.shape[1:] != counts.shape[1:] or len(buffer) < len(counts):
            shape = max(self._frames, len(counts)), *counts.shape[1:]
            buffer = self._buffer = torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")
        batch = buffer[: len(counts)]
        np.copyto(batch.numpy(), counts, casting="same_kind" if dtype.is_floating_point else "no")
        return batch.to(self._device, non_blocking=True).to(torch.float32)
