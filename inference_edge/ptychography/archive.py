"""What stays of a perspective in the run's folder: an HDF5 file with the arrays, and pictures.

Arrays are written at once, pictures when there is time: drawing eight of them may take longer than the next perspective
does. They are drawn from the file, so that no image waits in memory for them, and by a process of their own, so that
imaging does not wait for Python's lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.ptychography.archive_file import LABELS, RESIDUAL, UNREADABLE
from ptychoflow.inference_edge.ptychography.frame_residuals import ResidualMap
from ptychoflow.inference_edge.ptychography.picture_drawer import PictureDrawer
from ptychoflow.inference_edge.stitching.mosaic import StitchedImage
from ptychoflow.inference_edge.stitching.quality import Comparison, ReferenceImage, compare
from ptychoflow.streaming.durable_file import make_folder_durably
from ptychoflow.streaming.durable_hdf5 import durable_hdf5
from ptychoflow.streaming.errors import writing
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)

CLOSED_FRAMES = "closed_frames"
WAITING_MAX = 8
"""Perspectives that wait for the disk; with more, imaging waits too."""


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
    residuals: dict[MosaicKind, ResidualMap] = field(default_factory=dict)
    """Of the images whose frames were scored."""


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
        self._drawer = PictureDrawer(folder)
        self._pending: list[Future[None]] = []
        self._lock = threading.Lock()
        self._waiting: dict[int, PerspectiveImages] = {}
        self._undrawn: dict[int, None] = {}

    def closed(self) -> dict[int, int]:
        """Return the frames of each perspective that an edge before this one has written for good.

        Pictures that it has not drawn of them are drawn now. A file that cannot be read does not count.
        """
        found = {}
        for perspective, path in self._folder.image_files().items():
            try:
                with h5py.File(path) as file:
                    closed_frames = int(file.attrs.get(CLOSED_FRAMES, -1))
                    names = [f"{kind}_{channel}" for kind in file for channel in LABELS if file[kind][channel].size]
                    names += [f"{kind}_{RESIDUAL}" for kind in file if RESIDUAL in file[kind]]
            except UNREADABLE as error:
                log.warning("%s is not counted as written, it cannot be read: %s", path, error)
                continue
            if closed_frames >= 0:
                found[perspective] = closed_frames
                if not all(_is_newer(self._picture(perspective, name), path) for name in names):
                    self._undrawn[perspective] = None
                    self._pending.append(self._writer.submit(self._do_next))
        return found

    @property
    def full(self) -> bool:
        """Whether as many perspectives wait for the disk as may; more are taken, but had better not come."""
        with self._lock:
            return len(self._waiting) >= WAITING_MAX

    @property
    def saved(self) -> bool:
        """Whether the arrays of everything given to `write` are on the disk.

        Raises:
            UserError: a perspective could not be written.
        """
        self._raise_failures([future for future in self._pending if future.done()])
        self._pending = [future for future in self._pending if not future.done()]
        with self._lock:
            return not self._waiting

    @property
    def undrawn(self) -> int:
        """Perspectives whose pictures are still to be drawn."""
        with self._lock:
            return len(self._waiting.keys() | self._undrawn.keys())

    def write(self, images: PerspectiveImages) -> None:
        """Queue a perspective; returns at once. Files of the same perspective are replaced."""
        with self._lock:
            self._waiting.pop(images.perspective, None)
            self._waiting[images.perspective] = images
        # one for the arrays, one for the pictures
        self._pending += [self._writer.submit(self._do_next), self._writer.submit(self._do_next)]

    def wait(self) -> None:
        """Wait until everything given to `write` is on the disk, pictures too.

        Raises:
            UserError: a perspective could not be written.
        """
        if undrawn := self.undrawn:
            log.info("drawing the pictures of %d perspectives", undrawn)
        self._raise_failures(self._pending)

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
            UserError: a perspective could not be written.
        """
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._drawer.close()

    def _raise_failures(self, finished: list[Future[None]]) -> None:
        for future in finished:
            with writing(f"images to {self._folder.images}"):
                future.result()

    def _do_next(self) -> None:
        """Write the arrays that have waited longest, or draw pictures if no arrays wait."""
        with self._lock:
            images = next(iter(self._waiting.values()), None)
            perspective = None if images is not None else next(iter(self._undrawn), None)
        if images is not None:
            self._write_arrays(images)
        elif perspective is not None:
            self._draw(perspective)

    def _write_arrays(self, images: PerspectiveImages) -> None:
        try:
            with durable_hdf5(self._folder.image_file(images.perspective)) as file:
                _write_arrays(file, images, _comparison(images))
            with self._lock:
                self._undrawn[images.perspective] = None
        finally:
            with self._lock:
                if self._waiting.get(images.perspective) is images:
                    del self._waiting[images.perspective]

    def _draw(self, perspective: int) -> None:
        with self._lock:
            self._undrawn.pop(perspective)
        self._drawer.draw(perspective)

    def _picture(self, perspective: int, name: str) -> Path:
        kind, _, channel = name.rpartition("_")
        return self._folder.picture(perspective, kind, channel)


def _is_newer(picture: Path, file: Path) -> bool:
    return picture.exists() and picture.stat().st_mtime_ns >= file.stat().st_mtime_ns


def _comparison(images: PerspectiveImages) -> Comparison | None:
    if images.reference is None:
        return None
    return compare(images.images[MosaicKind.REFRESHED], images.reference, min_coverage=images.min_coverage)


def _write_arrays(file: h5py.File, images: PerspectiveImages, comparison: Comparison | None) -> None:
    """Write a group for each image and for the difference: `amplitude`, `phase` in radians, axes, `origin_px`."""
    file.attrs.update(
        perspective=images.perspective, angle_deg=images.angle_deg, pixel_size_m=np.array(images.pixel_size_m)
    )
    if images.closed_frames is not None:
        file.attrs[CLOSED_FRAMES] = images.closed_frames
    for kind, image in images.images.items():
        group = _write_image(file, kind.value, image, images.pixel_size_m)
        group["coverage"] = image.coverage
        group.attrs["model_versions"] = np.array(images.model_versions[kind], dtype=np.int64)
        if (residual := images.residuals.get(kind)) is not None:
            group[RESIDUAL] = residual.values
            group[RESIDUAL].attrs.update(origin_px=residual.origin_px, cell_px=residual.cell_px)
    if images.reference is not None:
        _write_image(file, MosaicKind.REFERENCE.value, images.reference, images.pixel_size_m)
    if comparison is not None:
        group = file.create_group("difference")
        group.attrs["global_phase_rad"] = comparison.global_phase_rad
        _write_channels(group, _differences(comparison), comparison.origin_px, images.pixel_size_m)


def _write_image(
    file: h5py.File, name: str, image: StitchedImage | ReferenceImage, pixel_size_m: tuple[float, float]
) -> Any:
    group = file.create_group(name)
    channels = {"amplitude": image.amplitude, "phase": image.phase}
    _write_channels(group, channels, image.origin_px, pixel_size_m)
    return group


def _write_channels(
    group: h5py.Group,
    channels: Mapping[str, npt.NDArray[np.float32]],
    origin_px: tuple[float, float],
    pixel_size_m: tuple[float, float],
) -> None:
    """Write what has the same axes, and these."""
    for channel, values in channels.items():
        group[channel] = values
    group.attrs["origin_px"] = np.array(origin_px, dtype=np.float64)
    shape = next(iter(channels.values())).shape
    for axis, label in enumerate(("y_m", "x_m")):
        group[label] = (origin_px[axis] + np.arange(shape[axis])) * pixel_size_m[axis]
        group[label].make_scale(label)
        for channel in channels:
            group[channel].dims[axis].attach_scale(group[label])


def _differences(comparison: Comparison) -> dict[str, npt.NDArray[np.float32]]:
    """Return refreshed minus reference on the compared area, NaN elsewhere."""
    pairs = {
        "amplitude": comparison.amplitude - comparison.reference_amplitude,
        "phase": comparison.phase - comparison.reference_phase,
    }
    return {name: np.where(comparison.area, values, np.nan).astype(np.float32) for name, values in pairs.items()}
