"""Running the network on frames."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from inference_edge.settings import DeviceChoice, EdgeSettings
from streaming.errors import UserError
from trainer.models.frame_network import FrameNetwork
from trainer.models.precision import autocast

log = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """Predicted patches, float32 (n, y, x) each; phase in radians within ±π."""

    amplitude: npt.NDArray[np.float32]
    phase: npt.NDArray[np.float32]

    def finite(self) -> npt.NDArray[np.bool_]:
        """Return which patches are finite throughout, bool (n,)."""
        pixels = np.isfinite(self.amplitude) & np.isfinite(self.phase)
        return np.equal(np.count_nonzero(pixels, axis=(1, 2)), pixels[0].size) if len(pixels) else np.zeros(0, bool)


class Imager:
    """Images frames on the chosen device.

    Raises:
        UserError: CUDA is asked for and there is none.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        self._device = _choose_device(settings.device)
        self._precision = settings.precision.on(self._device)
        self._batch_max = settings.batch_max
        log.info("inference on %s in %s", self._device, self._precision.value)

    def prepare(self, network: FrameNetwork) -> FrameNetwork:
        """Move a network to the device, in evaluation mode and in the memory layout that is fastest there."""
        return network.eval().to(self._device).to(memory_format=torch.channels_last)

    def predict(self, network: FrameNetwork, frames: npt.NDArray[Any]) -> Prediction:
        """Image frames (n, y, x) of counts with a prepared network, `batch_max` at a time."""
        parts = [self._predict_batch(network, frames[i : i + self._batch_max]) for i in self._starts(len(frames))]
        return parts[0] if len(parts) == 1 else Prediction(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _starts(self, frames: int) -> range:
        return range(0, max(frames, 1), self._batch_max)

    @torch.inference_mode()
    def _predict_batch(self, network: FrameNetwork, frames: npt.NDArray[Any]) -> Prediction:
        counts = torch.from_numpy(frames.astype(np.float32)).to(self._device)
        with autocast(self._precision, self._device):
            patches = network(counts)
        return Prediction(*(patch.float().cpu().numpy() for patch in patches))


def _choose_device(choice: DeviceChoice) -> torch.device:
    if choice is DeviceChoice.CUDA and not torch.cuda.is_available():
        raise UserError('edge.device = "cuda": this host has no usable CUDA device; set edge.device to "auto" or "cpu"')
    if choice is DeviceChoice.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice.value)
