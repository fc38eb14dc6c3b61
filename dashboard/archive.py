"""The stitched images in a run's folder: perspectives that are no longer at hand, and those of earlier runs.

The edge writes `images/perspective_NNNN.h5` with a group per kind of image, each with the datasets `amplitude` and
`phase` and the attribute `origin_px`, and `residual` with `origin_px` and `cell_px` where frames were scored.
"""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np

from ptychoflow.dashboard.cache import Cache
from ptychoflow.dashboard.mosaics import MAX_CELL_PX, Channel, Mosaic, ResidualLayer
from ptychoflow.streaming.events import MosaicImage, MosaicKind
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)

FILES_KEPT = 3
RESIDUAL = "residual"
MAXIMUM_PIXELS = 2**28
"""Of an image that is shown; the largest that an edge writes have a tenth of that."""
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises for files that are damaged, or are not what an edge writes."""
Images = dict[MosaicKind, Mosaic]


class ImageArchive:
    """Reads images from the folder `images/` of a run; keeps the last few files in memory. Thread-safe.

    Args:
        folder: of the run; it need not hold images yet.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._files: Cache[Images] = Cache(FILES_KEPT)

    def perspectives(self) -> list[int]:
        """Return the perspectives that have a file, in order."""
        return list(self._folder.image_files())

    def of(self, perspective: int) -> Images:
        """Return the images of a perspective; empty where there is no file that can be read. Blocks while it reads."""
        path = self._folder.image_file(perspective)
        try:
            revision = path.stat().st_mtime_ns
        except OSError:
            return {}
        return self._files.get((perspective, revision), lambda: _read(path, perspective, revision))


def _read(path: Path, perspective: int, revision: int) -> Images:
    try:
        with h5py.File(path) as file:
            kinds = [kind for kind in MosaicKind if kind in file and _kept_in(file, f"{kind}/phase").size]
            return {kind: _read_image(file, kind, perspective, revision) for kind in kinds}
    except UNREADABLE as error:
        log.warning("cannot show %s: %s", path, error)
        return {}


def _read_image(file: h5py.File, kind: MosaicKind, perspective: int, revision: int) -> Mosaic:
    group = file[kind]
    versions = group.attrs.get("model_versions", np.zeros(1, np.int64))
    origin_y, origin_x = (float(value) for value in group.attrs["origin_px"])
    pixel_y, pixel_x = (float(value) for value in file.attrs["pixel_size_m"])
    info = MosaicImage(perspective, kind, int(max(versions, default=0)), (origin_y, origin_x), (pixel_y, pixel_x))
    channels = {channel: _kept_in(file, f"{kind}/{channel}")[()].astype(np.float32) for channel in Channel}
    return Mosaic(info, channels, revision, _read_residual(file, kind))


def _read_residual(file: h5py.File, kind: MosaicKind) -> ResidualLayer | None:
    if RESIDUAL not in file[kind]:
        return None
    dataset = _kept_in(file, f"{kind}/{RESIDUAL}")
    (origin_y, origin_x), cell_px = (int(one) for one in dataset.attrs["origin_px"]), int(dataset.attrs["cell_px"])
    if not 1 <= cell_px <= MAX_CELL_PX or not dataset.size:
        raise ValueError(f"{kind}/{RESIDUAL} is no map of cells of {cell_px} px")
    return ResidualLayer(dataset[()].astype(np.float32), (origin_y, origin_x), cell_px)


def _kept_in(file: h5py.File, name: str) -> h5py.Dataset:
    """Return an image that lies in the file itself: a copied run could have others show any file of this host."""
    found = file[name]
    if (
        not isinstance(found, h5py.Dataset)
        or found.file.filename != file.filename
        or found.external
        or found.is_virtual
    ):
        raise ValueError(f"{name} is not kept in this file")
    if found.ndim != 2 or found.size > MAXIMUM_PIXELS:
        raise ValueError(f"{name} is no image: {found.shape}")
    return found
