"""Phase retrieval that starts from what has been learnt, beside phase retrieval that starts from nothing.

The held-out perspective is predicted and stitched; that image is the object from which the engine starts. After the
same number of epochs it is asked how well each result explains the frames, and how near it is to the ground truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.retrieval.engine import Measurement, Reconstruction
from ptychoflow.acquisition.retrieval.engines import make_engine
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, in_common_gauge
from ptychoflow.acquisition.retrieval.patches import cut_patches
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.inference_edge.ptychography.residual import forward_residuals
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.inference_edge.stitching.quality import compare, measure
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.durable_file import durable_file
from ptychoflow.streaming.messages import FrameRole, GroundTruthSource
from ptychoflow.workflow.experiments.ptychography.dataset import Dataset, PerspectiveSamples
from ptychoflow.workflow.experiments.ptychography.held_out import MIN_COVERAGE

COLD, WARM = "from_nothing", "from_prediction"
Predict = Callable[[npt.NDArray[Any]], Arrays]


def write_start(dataset: Dataset, predict: Predict, path: Path) -> None:
    """Predict and stitch the held-out perspective, and write it for `compare_starts`, if there is one that allows it.

    Args:
        dataset: the scan.
        predict: makes patches (n, y, x), amplitude and phase, of counts (n, y, x).
        path: of the file, NumPy's `.npz`.

    Raises:
        OSError: the disk does not take it.
    """
    if (held_out := _held_out(dataset)) is None:
        return
    began_s = time.monotonic()
    image = _stitched(held_out, predict)
    took_s = time.monotonic() - began_s
    arrays: dict[str, Any] = {"values": image.values, "origin_px": image.origin_px, "seconds": took_s}
    with durable_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)


def compare_starts(
    dataset: Dataset, path: Path, settings: RetrievalSettings, epochs: Sequence[int]
) -> list[dict[str, Any]] | None:
    """Return, for each number of epochs, what phase retrieval of the held-out perspective has found from both starts.

    Blocks for twice the sum of epochs. Random generators are seeded, as pty-chi does, which also takes ranks of
    torchrun for its own: not in a process of theirs.

    Args:
        dataset: the scan.
        path: what `write_start` has written.
        settings: of phase retrieval, which is done with pty-chi here.
        epochs: numbers of epochs.

    Returns:
        For each: `epochs`, and for both starts `residual` (`forward_residuals`, mean over frames), `psnr_db` against
        the ground truth, and `seconds`, those of prediction and stitching included. None where there is no held-out
        perspective, its positions or its probe.
    """
    if (held_out := _held_out(dataset)) is None or not epochs:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        origin_y, origin_x = arrays["origin_px"]
        predicted, predicting_s = ObjectImage(arrays["values"], (float(origin_y), float(origin_x))), arrays["seconds"]
    found = []
    for count in epochs:
        asked = settings.model_copy(update={"source": GroundTruthSource.PTYCHI, "epochs": count})
        found.append(
            {
                "epochs": count,
                COLD: _retrieve(held_out, None, asked, before_s=0.0),
                WARM: _retrieve(held_out, predicted, asked, before_s=float(predicting_s)),
            }
        )
    return found


def _held_out(dataset: Dataset) -> PerspectiveSamples | None:
    part = next((part for part in dataset if len(part.rows(FrameRole.HELD_OUT))), None)
    return None if part is None or part.probe is None or part.positions_px is None else part


def epochs_needed(found: Sequence[dict[str, Any]]) -> int | None:
    """Return after how many epochs from the prediction the frames are explained as well as after all from nothing."""
    goal = found[-1][COLD]["residual"]
    return next((one["epochs"] for one in found if one[WARM]["residual"] <= goal), None)


def _frames(part: PerspectiveSamples) -> npt.NDArray[Any]:
    return np.array(part.samples["diffraction"][part.rows(FrameRole.HELD_OUT)])


def _positions_px(part: PerspectiveSamples) -> npt.NDArray[np.float64]:
    assert part.positions_px is not None  # noqa: S101
    return part.positions_px[part.rows(FrameRole.HELD_OUT)]


def _stitched(part: PerspectiveSamples, predict: Predict) -> ObjectImage:
    patches, mosaic = predict(_frames(part)), Mosaic()
    mosaic.stitch(place_patches(patches["amplitude"], patches["phase"], _positions_px(part)))
    image = mosaic.image()
    covered = image.coverage > 0
    values = np.ones(covered.shape, np.complex64)
    values[covered] = image.amplitude[covered] * np.exp(1j * image.phase[covered])
    return ObjectImage(values, (float(image.origin_px[0]), float(image.origin_px[1])))


def _retrieve(
    part: PerspectiveSamples, start: ObjectImage | None, settings: RetrievalSettings, *, before_s: float
) -> dict[str, Any]:
    assert part.probe is not None  # noqa: S101
    frames, positions_px = _frames(part), _positions_px(part)
    began_s = time.monotonic()
    found = make_engine(settings).reconstruct(Measurement(frames, positions_px, part.probe, None, start))
    seconds = before_s + time.monotonic() - began_s
    return {
        "residual": _residual(frames, positions_px, found),
        "psnr_db": _psnr_db(part, found, settings),
        "seconds": seconds,
    }


def _residual(frames: npt.NDArray[Any], positions_px: npt.NDArray[np.float64], found: Reconstruction) -> float:
    height, width = frames.shape[1:]
    under = cut_patches(found.object_image, positions_px, (height, width))
    return float(np.nanmean(forward_residuals(frames, np.abs(under), np.angle(under), found.probe)))


def _psnr_db(part: PerspectiveSamples, found: Reconstruction, settings: RetrievalSettings) -> dict[str, float] | None:
    if part.reference is None:
        return None
    height, width = part.samples["phase"].shape[1:]
    positions_px = _positions_px(part)
    job = GroundTruthJob(
        perspective=part.index,
        frames=_frames(part),
        positions_px=positions_px,
        probe=part.probe,
        mask=None,
        recorded=None,
        target_shape_px=(height, width),
    )
    patches, mosaic = cut_patches(in_common_gauge(found, job, settings), positions_px, (height, width)), Mosaic()
    mosaic.stitch(place_patches(np.abs(patches), np.angle(patches), positions_px))
    comparison = compare(mosaic.image(), part.reference, min_coverage=MIN_COVERAGE)
    quality = measure(comparison) if comparison is not None else None
    return None if quality is None else msgspec.to_builtins(quality.psnr_db)
