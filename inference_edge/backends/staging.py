"""Counts on their way to a network that runs on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Staging:
    """A buffer that is used again for every batch.

    Args:
        frames: that come together usually; it grows for more.
    """

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self._buffer: Tensor | None = None

    def float32(self, counts: npt.NDArray[Any]) -> Tensor:
        """Return counts (n, y, x) of any real dtype as float32.

        Valid until the next call, and until the caller changes `counts`.
        """
        if counts.dtype == np.float32 and counts.flags.writeable:
            return torch.from_numpy(counts)
        buffer = self._buffer
        if buffer is None or buffer.shape[1:] != counts.shape[1:] or len(buffer) < len(counts):
            buffer = self._buffer = torch.empty((max(self._frames, len(counts)), *counts.shape[1:]))
        batch = buffer[: len(counts)]
        np.copyto(batch.numpy(), counts, casting="same_kind")
        return batch
