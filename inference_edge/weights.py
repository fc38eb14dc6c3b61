"""Accepting a new version of the model, or refusing it with the reason."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_edge.backends.base import Runner
from inference_edge.inference import Imager
from inference_edge.prediction import Prediction
from streaming.events import WeightsApplied, WeightsRejected
from streaming.messages import ScanStart, Weights
from streaming.telemetry import TelemetrySender
from streaming.weights_channel import WeightsClient
from trainer.models.settings import NetworkConfig
from trainer.models.weights_file import BadWeights, read_weights

log = logging.getLogger(__name__)

CANARY_FRAMES = 8


@dataclass(frozen=True)
class Model:
    """A version in use: a network ready on the device, and the prediction that it has to beat."""

    version: int
    final: bool
    runner: Runner
    constant: Prediction
    """The training mean, one patch, (1, y, x) each."""


def accept_weights(
    announced: Weights, data: bytes, *, scan: ScanStart, imager: Imager, canary: npt.NDArray[Any]
) -> Model:
    """Check a weights file and make a model of it.

    Args:
        announced: the message that came with the file.
        data: the file's bytes; not trusted.
        scan: the scan whose frames will be imaged.
        imager: where the network will run.
        canary: counts (n, y, x) on which the network must predict finite patches.

    Raises:
        BadWeights: wrong digest, damaged file, another version than announced, a network for other frames or
            patches than this scan's, or predictions that are not finite.
    """
    loaded = read_weights(data, announced.sha256)
    if loaded.manifest.version != announced.version:
        raise BadWeights(f"the file holds version {loaded.manifest.version}, announced was {announced.version}")
    _require_same_shapes(loaded.manifest.network, scan)
    runner = imager.prepare(loaded.network)
    if not imager.predict(runner, canary[-CANARY_FRAMES:]).finite().all():
        raise BadWeights("the network's predictions are not finite on the last frames")
    constant = Prediction(loaded.constant_amplitude.numpy()[None], loaded.constant_phase.numpy()[None])
    return Model(announced.version, announced.final, runner, constant)


class WeightsIntake:
    """Holds the model in use and replaces it when better weights come; bad ones change nothing."""

    def __init__(self, client: WeightsClient, *, imager: Imager, telemetry: TelemetrySender) -> None:
        self.model: Model | None = None
        """The newest version that was accepted."""
        self.final_seen = False
        """The trainer's final version came, be it accepted or refused."""
        self._client, self._imager, self._telemetry = client, imager, telemetry

    def poll(self, scan: ScanStart, canary: npt.NDArray[Any] | None) -> bool:
        """Take the newest weights, if any came; return whether the model was replaced. Does not wait.

        Args:
            scan: the scan whose frames are imaged.
            canary: the last frames received, counts (n, y, x); None before the first.
        """
        received = self._client.poll()
        if received is None:
            return False
        announced, data = received
        self.final_seen |= announced.final
        frames = _blank_canary(scan) if canary is None else canary
        try:
            self.model = accept_weights(announced, data, scan=scan, imager=self._imager, canary=frames)
        except BadWeights as error:
            log.warning("refused weights version %d: %s", announced.version, error)
            self._telemetry.send(WeightsRejected(announced.version, str(error)))
            return False
        self._telemetry.send(WeightsApplied(announced.version))
        return True


def _blank_canary(scan: ScanStart) -> npt.NDArray[np.float32]:
    """Return one frame of single counts."""
    return np.ones((1, *scan.frame_shape_px), dtype=np.float32)


def _require_same_shapes(network: NetworkConfig, scan: ScanStart) -> None:
    if network.frame_shape_px != scan.frame_shape_px:
        raise BadWeights(f"made for frames of {network.frame_shape_px} px, this scan's have {scan.frame_shape_px} px")
    if network.target_shape_px != scan.target_shape_px:
        raise BadWeights(f"predicts patches of {network.target_shape_px} px, this scan's are {scan.target_shape_px} px")
