"""The held-out perspective, imaged by the trained network, stitched, and compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.inference_edge.stitching.mosaic import Mosaic, StitchedImage, place_patches
from ptychoflow.inference_edge.stitching.quality import Comparison, compare, measure
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.durable_file import durable_file
from ptychoflow.streaming.events import Quality
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.workflow.experiments.ptychography.dataset import Dataset, PerspectiveSamples

BATCH = 64
MIN_COVERAGE = 4
"""Frames that cover a pixel at least for it to be compared."""


@dataclass(frozen=True)
class HeldOut:
    """How the held-out perspective came out."""

    quality: Quality
    constant: Quality
    """Of predicting the mean training patch everywhere."""
    image: Comparison

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        found: dict[str, Any] = msgspec.to_builtins(self.quality)
        return found | {"constant": msgspec.to_builtins(self.constant)}

    def write_image(self, path: Path) -> None:
        """Write the phases, NaN where nothing is compared."""
        names = ("phase", "reference_phase", "amplitude", "reference_amplitude")
        images = {name: np.where(self.image.area, getattr(self.image, name), np.nan) for name in names}
        arrays: dict[str, Any] = {name: image.astype(np.float32) for name, image in images.items()}
        with durable_file(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **arrays)


def image_held_out(
    dataset: Dataset, predict: Callable[[npt.NDArray[Any]], Arrays], constant: Patches
) -> HeldOut | None:
    """Return the scores of the perspective with held-out frames; None if there is none that can be stitched.

    Args:
        dataset: the scan.
        predict: makes patches (n, y, x), amplitude and phase, of counts (n, y, x).
        constant: the mean training patch (y, x).
    """
    held_out = next((part for part in dataset if len(part.rows(FrameRole.HELD_OUT)) and part.reference), None)
    if held_out is None or held_out.positions_px is None:
        return None
    frames = held_out.of_role(FrameRole.HELD_OUT)["diffraction"]
    predicted = compare_held_out(held_out, predict(frames))
    repeated = {name: np.repeat(patch.cpu().numpy()[None], len(frames), axis=0) for name, patch in _named(constant)}
    flat = compare_held_out(held_out, repeated)
    if predicted is None or flat is None:
        return None
    quality, constant_quality = measure(predicted), measure(flat)
    if quality is None or constant_quality is None:
        return None
    return HeldOut(quality, constant_quality, predicted)


def _named(patches: Patches) -> list[tuple[str, torch.Tensor]]:
    return list(patches._asdict().items())


@torch.inference_mode()
def predict(network: FrameNetwork, frames: npt.NDArray[Any]) -> Arrays:
    """Return the patches (n, y, x) that a network in evaluation mode makes of counts (n, y, x)."""
    device = next(network.parameters()).device
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in Patches._fields}
    for start in range(0, len(frames), BATCH):
        output: Patches = network(torch.from_numpy(frames[start : start + BATCH]).to(device))
        for name, patch in _named(output):
            parts[name].append(patch.float().cpu().numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}


def stitch_held_out(perspective: PerspectiveSamples, patches: Mapping[str, npt.NDArray[Any]]) -> StitchedImage | None:
    """Stitch patches (n, y, x), amplitude and phase, of a perspective's held-out frames; None without positions."""
    if perspective.positions_px is None:
        return None
    positions_px = perspective.positions_px[perspective.rows(FrameRole.HELD_OUT)]
    mosaic = Mosaic()
    mosaic.stitch(place_patches(patches["amplitude"], patches["phase"], positions_px))
    return mosaic.image()


def compare_held_out(perspective: PerspectiveSamples, patches: Mapping[str, npt.NDArray[Any]]) -> Comparison | None:
    """Compare them, stitched, with the reference; None where there is none, or nothing is covered by enough frames."""
    image = stitch_held_out(perspective, patches)
    if image is None or perspective.reference is None:
        return None
    return compare(image, perspective.reference, min_coverage=MIN_COVERAGE)
