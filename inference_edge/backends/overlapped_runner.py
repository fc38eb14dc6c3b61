"""A network on a GPU: the next frames go there while it computes, and patches come back while it has the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptychoflow.inference_edge.backends.prediction import Prediction, prediction_of
from ptychoflow.inference_edge.backends.runner import Result, Runner


class CopyStreams:
    """The streams by which a device is given frames and gives patches back."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.streams = torch.get_device_module(device)
        self.uploading, self.downloading = self.streams.Stream(), self.streams.Stream()


class OverlappedRunner(Runner):
    """Copies with two streams beside the one that computes: begin with frames, then take the results of those before.

    Every batch has memory of its own. PyTorch keeps what is freed, pinned memory too, and gives it out again once no
    copy uses it, so there are as many slots as batches were ever under way at once.

    Args:
        network: maps counts, float32 (n, y, x) on `device`, to channels that nobody writes to afterwards.
        copying: on the device where it runs; the same for all networks, since memory is kept stream by stream.
    """

    overlaps = True

    def __init__(self, network: Callable[[Tensor], Sequence[Tensor]], copying: CopyStreams) -> None:
        self._network, self._device = network, copying.device
        self._streams, self._uploading, self._downloading = copying.streams, copying.uploading, copying.downloading

    @torch.inference_mode()
    def begin(self, counts: npt.NDArray[Any]) -> Result:
        """Copy the frames into pinned memory, and queue what the GPU has to do with them. Does not wait for it."""
        computing = self._streams.current_stream()
        uploaded, computed, downloaded = (self._streams.Event() for _ in range(3))

        # PyTorch computes with few kinds of unsigned integers, but converts all of them
        on_host = self._pinned(counts.shape, torch.from_numpy(np.empty(0, counts.dtype)).dtype)
        np.copyto(on_host.numpy(), counts, casting="no")
        with self._streams.stream(self._uploading):
            on_device = on_host.to(self._device, non_blocking=True)
            uploaded.record(self._uploading)

        computing.wait_event(uploaded)
        channels = [channel.float() for channel in self._network(on_device.float())]
        computed.record(computing)

        self._downloading.wait_event(computed)
        with self._streams.stream(self._downloading):
            patches = [
                self._pinned(channel.shape, torch.float32).copy_(channel, non_blocking=True) for channel in channels
            ]
            downloaded.record(self._downloading)
        return _UnderWay(downloaded, patches, in_use=[on_host, on_device, *channels])

    def _pinned(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self._device.type == "cuda")


@dataclass
class _UnderWay:
    """A batch that the GPU has."""

    downloaded: Any
    """The event."""
    patches: Sequence[Tensor]
    in_use: list[Tensor]
    """What one stream has made and another reads: the allocator knows of one only, and would give it out too early."""

    def __call__(self) -> Prediction:
        """Wait for the patches."""
        self.downloaded.synchronize()
        self.in_use.clear()
        return prediction_of([channel.numpy() for channel in self.patches])
