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

from ptychoflow.acquisition.ptychography.warm_start import as_object
from ptychoflow.acquisition.retrieval.engine import Measurement, Reconstruction
from ptychoflow.acquisition.retrieval.engines import make_engine
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, in_common_gauge
from ptychoflow.acquisition.retrieval.patches import cut_patches
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.inference_edge.ptychography.residual import forward_residuals
from ptychoflow.inference_edge.stitching.quality import measure
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.durable_file import durable_file
from ptychoflow.streaming.messages import FrameRole, GroundTruthSource
from ptychoflow.workflow.experiments.ptychography.dataset import Dataset, PerspectiveSamples
from ptychoflow.workflow.experiments.ptychography.held_out import compare_held_out, stitch_held_out

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
    image = stitch_held_out(held_out, predict(held_out.of_role(FrameRole.HELD_OUT)["diffraction"]))
    if image is None:
        return
    start = as_object(image.amplitude, image.phase, image.origin_px)
    took_s = time.monotonic() - began_s
    arrays: dict[str, Any] = {"values": start.values, "origin_px": start.origin_px, "seconds": took_s}
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


def _retrieve(
    part: PerspectiveSamples, start: ObjectImage | None, settings: RetrievalSettings, *, before_s: float
) -> dict[str, Any]:
    assert part.probe is not None and part.positions_px is not None  # noqa: S101
    rows = part.rows(FrameRole.HELD_OUT)
    height, width = part.samples["phase"].shape[1:]
    job = GroundTruthJob(
        perspective=part.index,
        frames=np.array(part.samples["diffraction"][rows]),
        positions_px=part.positions_px[rows],
        probe=part.probe,
        mask=part.mask,
        recorded=None,
        target_shape_px=(height, width),
    )
    began_s = time.monotonic()
    measurement = Measurement(job.frames[:], job.positions_px, part.probe, part.mask, start)
    found = make_engine(settings).reconstruct(measurement)
    seconds = before_s + time.monotonic() - began_s
    patches = cut_patches(in_common_gauge(found, job, settings), job.positions_px, job.target_shape_px)
    comparison = compare_held_out(part, {"amplitude": np.abs(patches), "phase": np.angle(patches)})
    quality = None if comparison is None else measure(comparison)
    return {
        "residual": _residual(job, found),
        "psnr_db": None if quality is None else msgspec.to_builtins(quality.psnr_db),
        "seconds": seconds,
    }


def _residual(job: GroundTruthJob, found: Reconstruction) -> float:
    frames = job.frames[:]
    height, width = frames.shape[1:]
    under = cut_patches(found.object_image, job.positions_px, (height, width))
    return float(np.nanmean(forward_residuals(frames, np.abs(under), np.angle(under), found.probe, job.mask)))
