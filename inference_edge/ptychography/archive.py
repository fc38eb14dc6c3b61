"""What stays of a perspective in the run's folder: an HDF5 file with the arrays, and pictures."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.stitching.figures import (
    ColourScale,
    amplitude_scale,
    difference_scale,
    phase_scale,
    write_picture,
)
from ptychoflow.inference_edge.stitching.mosaic import StitchedImage
from ptychoflow.inference_edge.stitching.quality import Comparison, ReferenceImage, compare
from ptychoflow.streaming.durable_file import durable_file, make_folder_durably
from ptychoflow.streaming.errors import writing
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)

CLOSED_FRAMES = "closed_frames"
LABELS = {"amplitude": "amplitude", "phase": "phase (rad)"}
Channel = npt.NDArray[np.floating]


@dataclass(frozen=True)
class PerspectiveImages:
    """Everything about one perspective that is written."""

    perspective: int
    angle_deg: float
    pixel_size_m: tuple[float, float]
    min_coverage: int
    images: dict[MosaicKind, StitchedImage]
    """First pass and refreshed."""
    model_versions: dict[MosaicKind, list[int]]
    reference: ReferenceImage | None
    closed_frames: int | None = None
    """Frames received, if the perspective will not change any more."""


class Archive:
    """Writes perspectives from a thread of its own, so that imaging does not wait for pictures.

    Args:
        folder: of the run.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        with writing(f"images to {folder.images}"):
            make_folder_durably(folder.images)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="image-archive")
        self._pending: list[Future[None]] = []

    def closed(self) -> dict[int, int]:
        """Return the frames of each perspective that an edge before this one has written for good."""
        found = {}
        for path in self._folder.image_files().values():
            with h5py.File(path) as file:
                if CLOSED_FRAMES in file.attrs:
                    found[int(file.attrs["perspective"])] = int(file.attrs[CLOSED_FRAMES])
        return found

    @property
    def idle(self) -> bool:
        """Whether everything given to `write` is on the disk.

        Raises:
            UserError: a perspective could not be written.
        """
        self._raise_failures([future for future in self._pending if future.done()])
        self._pending = [future for future in self._pending if not future.done()]
        return not self._pending

    def write(self, images: PerspectiveImages) -> None:
        """Queue a perspective; returns at once. Files of the same perspective are replaced."""
        self._pending.append(self._writer.submit(_write_perspective, self._folder, images))

    def write_arrays(self, images: PerspectiveImages) -> None:
        """Queue the arrays of a perspective alone, which are there long before its pictures are; returns at once."""
        self._pending.append(self._writer.submit(_write_file, self._folder, images, _comparison(images)))

    def wait(self) -> None:
        """Wait until everything given to `write` is on the disk.

        Raises:
            UserError: a perspective could not be written.
        """
        self._raise_failures(self._pending)

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
            UserError: a perspective could not be written.
        """
        self._writer.shutdown()
        self._raise_failures(self._pending)

    def _raise_failures(self, finished: list[Future[None]]) -> None:
        for future in finished:
            with writing(f"images to {self._folder.images}"):
                future.result()


def _write_perspective(folder: RunFolder, images: PerspectiveImages) -> None:
    comparison = _comparison(images)
    for name, values, scale in _pictures(images, comparison):
        kind, _, channel = name.rpartition("_")
        with durable_file(folder.picture(images.perspective, kind, channel)) as unfinished:
            write_picture(unfinished, values, scale=scale, label=LABELS[channel], pixel_size_m=images.pixel_size_m)
    # last, because an edge that is started again takes this file for a sign that all others are there
    _write_file(folder, images, comparison)
    log.info("wrote the images of perspective %d", images.perspective)


def _comparison(images: PerspectiveImages) -> Comparison | None:
    if images.reference is None:
        return None
    return compare(images.images[MosaicKind.REFRESHED], images.reference, min_coverage=images.min_coverage)


def _write_file(folder: RunFolder, images: PerspectiveImages, comparison: Comparison | None) -> None:
    with durable_file(folder.image_file(images.perspective)) as unfinished, h5py.File(unfinished, "w") as file:
        _write_arrays(file, images, comparison)


def _write_arrays(file: h5py.File, images: PerspectiveImages, comparison: Comparison | None) -> None:
    """Write one group per image: `amplitude`, `phase` as predicted in radians, axes `y_m` and `x_m`, `origin_px`."""
    file.attrs.update(
        perspective=images.perspective, angle_deg=images.angle_deg, pixel_size_m=np.array(images.pixel_size_m)
    )
    if images.closed_frames is not None:
        file.attrs[CLOSED_FRAMES] = images.closed_frames
    for kind, image in images.images.items():
        group = _write_image(file, kind.value, image, images.pixel_size_m)
        group["coverage"] = image.coverage
        group.attrs["model_versions"] = np.array(images.model_versions[kind], dtype=np.int64)
    if images.reference is not None:
        _write_image(file, MosaicKind.REFERENCE.value, images.reference, images.pixel_size_m)
    if comparison is not None:
        group = file.create_group("difference")
        group.attrs.update(origin_px=comparison.origin_px, global_phase_rad=comparison.global_phase_rad)
        for channel, values in _differences(comparison).items():
            group[channel] = values


def _write_image(
    file: h5py.File, name: str, image: StitchedImage | ReferenceImage, pixel_size_m: tuple[float, float]
) -> Any:
    group = file.create_group(name)
    group["amplitude"], group["phase"] = image.amplitude, image.phase
    group.attrs["origin_px"] = np.array(image.origin_px, dtype=np.float64)
    for axis, label in enumerate(("y_m", "x_m")):
        pixels = image.origin_px[axis] + np.arange(image.amplitude.shape[axis])
        group[label] = pixels * pixel_size_m[axis]
        group[label].make_scale(label)
        for channel in ("amplitude", "phase"):
            group[channel].dims[axis].attach_scale(group[label])
    return group


def _differences(comparison: Comparison) -> dict[str, npt.NDArray[np.float32]]:
    """Return refreshed minus reference on the compared area, NaN elsewhere."""
    pairs = {
        "amplitude": comparison.amplitude - comparison.reference_amplitude,
        "phase": comparison.phase - comparison.reference_phase,
    }
    return {name: np.where(comparison.area, values, np.nan).astype(np.float32) for name, values in pairs.items()}


def _pictures(images: PerspectiveImages, comparison: Comparison | None) -> list[tuple[str, Channel, ColourScale]]:
    """Return name, values and colours of each picture; those of one channel share their colours.

    Phases are shown with the global phase of the reference, as far as there is one.
    """
    turn_rad = comparison.global_phase_rad if comparison is not None else 0.0
    amplitudes: dict[str, Channel] = {kind.value: image.amplitude for kind, image in images.images.items()}
    phases: dict[str, Channel] = {
        kind.value: np.angle(np.exp(1j * (image.phase - turn_rad))) for kind, image in images.images.items()
    }
    standard = MosaicKind.REFRESHED.value
    if images.reference is not None:
        standard = MosaicKind.REFERENCE.value
        amplitudes[standard], phases[standard] = images.reference.amplitude, images.reference.phase
    scales = {"amplitude": amplitude_scale(amplitudes[standard]), "phase": phase_scale(phases[standard])}
    pictures = [
        (f"{name}_{channel}", values, scales[channel])
        for channel, shown in (("amplitude", amplitudes), ("phase", phases))
        for name, values in shown.items()
        if values.size
    ]
    differences = {} if comparison is None else _differences(comparison)
    return pictures + [(f"difference_{name}", values, difference_scale(values)) for name, values in differences.items()]
