"""Accepting a new version of the model, or refusing it with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.backends.prediction import Prediction
from ptychoflow.inference_edge.backends.runner import Runner, run_in_batches
from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.inference_edge.stitching.quality import ReferenceImage, compare, measure
from ptychoflow.streaming.messages import ScanStart, Weights
from ptychoflow.trainer.models.ptychonn_settings import NetworkConfig
from ptychoflow.trainer.models.tensor_file import BadWeights
from ptychoflow.trainer.models.weights_file import read_weights


class ConstantPatch(NamedTuple):
    """The training mean: one patch, float32 (1, y, x) each; phase in radians."""

    amplitude: npt.NDArray[np.float32]
    phase: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A version that can be used: a network ready to run, and the prediction that it has to beat."""

    version: int
    runner: Runner
    constant: ConstantPatch


@dataclass(frozen=True)
class Known:
    """What frames show, and what the weights in use make of them."""

    position_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""
    reference: ReferenceImage
    prediction: Prediction

    def phase_psnr_db(self, prediction: Prediction) -> float | None:
        """Return the phase PSNR of a prediction's stitched image, None where it is not defined."""
        mosaic = Mosaic()
        mosaic.stitch(place_patches(*prediction, self.position_px))
        comparison = compare(mosaic.image(), self.reference, min_coverage=1)
        quality = None if comparison is None else measure(comparison)
        return None if quality is None else quality.psnr_db.phase


@dataclass(frozen=True)
class Canary:
    """Frames on which new weights are tried before they are used."""

    frames: npt.NDArray[Any]
    """(n, y, x) counts."""
    known: Known | None = None


def check_weights(
    announced: Weights, data: bytes, *, scan: ScanStart, factory: RunnerFactory, canary: Canary, refuse_below_db: float
) -> Model:
    """Check a weights file and make a model of it. May take some seconds, and may run beside other inference.

    Args:
        announced: the message that came with the file.
        data: the file's bytes; not trusted.
        scan: the scan whose frames will be imaged.
        factory: makes the network ready to run.
        canary: the network must predict finite patches of its frames, and not much worse ones than before.
        refuse_below_db: how much below the PSNR before is much worse.

    Raises:
        BadWeights: wrong digest, damaged file, a network for other frames or
            patches than this scan's, or predictions that are not finite or much worse.
    """
    loaded = read_weights(data, announced.sha256)
    _require_same_shapes(loaded.manifest.network, scan)
    runner = factory.prepare(loaded.network)
    prediction = run_in_batches(runner, canary.frames, batch_max=factory.batch_max)
    if not prediction.finite().all():
        raise BadWeights("the network's predictions are not finite on the last frames")
    constant = ConstantPatch(loaded.constant_amplitude.numpy()[None], loaded.constant_phase.numpy()[None])
    if canary.known is not None:
        _require_no_fall(prediction, canary.known, constant=constant, refuse_below_db=refuse_below_db)
    return Model(loaded.manifest.version, runner, constant)


def blank_canary(scan: ScanStart) -> Canary:
    """Return one frame of single counts, for when no frame has come yet."""
    return Canary(np.ones((1, *scan.frame_shape_px), dtype=np.float32))


def _require_same_shapes(network: NetworkConfig, scan: ScanStart) -> None:
    if network.frame_shape_px != scan.frame_shape_px:
        raise BadWeights(f"made for frames of {network.frame_shape_px} px, this scan's have {scan.frame_shape_px} px")
    if network.target_shape_px != scan.target_shape_px:
        raise BadWeights(f"predicts patches of {network.target_shape_px} px, this scan's are {scan.target_shape_px} px")


def _require_no_fall(prediction: Prediction, known: Known, *, constant: ConstantPatch, refuse_below_db: float) -> None:
    """Weights that were no better than a constant have no merit to lose: a network that still learns may fluctuate."""
    everywhere = Prediction(*(np.repeat(patch, len(known.position_px), axis=0) for patch in constant))
    before_db, now_db, constant_db = map(known.phase_psnr_db, (known.prediction, prediction, everywhere))
    if before_db is None or now_db is None or (constant_db is not None and before_db <= constant_db):
        return
    if now_db < before_db - refuse_below_db:
        raise BadWeights(f"phase PSNR on frames whose reference is known: {now_db:.1f} dB, before {before_db:.1f} dB")
