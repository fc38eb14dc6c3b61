"""What a network says about frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ptychoflow.streaming.finite import finite_rows
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn_settings import Heads


class Prediction(NamedTuple):
    """Predicted patches, float32 (n, y, x) each; phase in radians within ±π."""

    amplitude: npt.NDArray[np.float32] | None
    """None of a network that predicts phases alone: it is 1 everywhere, and nobody computes with it."""
    phase: npt.NDArray[np.float32]

    def finite(self) -> npt.NDArray[np.bool_]:
        """Return which patches are finite throughout, bool (n,)."""
        channels = [finite_rows(channel) for channel in self if channel is not None]
        return np.asarray(np.logical_and.reduce(channels))

    def select(self, chosen: npt.NDArray[np.bool_]) -> Prediction:
        """Return the patches for which `chosen`, bool (n,), is true."""
        return Prediction(None if self.amplitude is None else self.amplitude[chosen], self.phase[chosen])


class PredictedChannels(nn.Module):
    """A network that gives the channels it predicts, as `prediction_of` takes them, and no amplitude of ones."""

    def __init__(self, network: FrameNetwork) -> None:
        super().__init__()
        self.network = network
        self.phase_only = network.config.model.heads is Heads.PHASE

    def forward(self, counts: Tensor) -> tuple[Tensor, ...]:
        """Map counts (n, y, x) to patches (n, target y, target x) of each channel."""
        patches = self.network(counts)
        return (patches.phase,) if self.phase_only else (patches.amplitude, patches.phase)


def prediction_of(channels: Sequence[npt.NDArray[Any]]) -> Prediction:
    """Return a prediction of (amplitude, phase), or of the phase alone."""
    return Prediction(channels[0] if len(channels) > 1 else None, channels[-1])


def join_predictions(parts: list[Prediction]) -> Prediction:
    """Return one prediction of all patches, of one network; copies unless there is only one part."""
    if len(parts) == 1:
        return parts[0]
    amplitudes = [part.amplitude for part in parts if part.amplitude is not None]
    return Prediction(
        np.concatenate(amplitudes) if amplitudes else None, np.concatenate([part.phase for part in parts])
    )
