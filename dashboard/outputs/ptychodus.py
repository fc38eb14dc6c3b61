"""Whole perspectives as ptychodus products with their diffraction files."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import ClassVar

import h5py
import numpy as np

from ptychoflow.dashboard.exports import Scanned, write_product
from ptychoflow.dashboard.mosaics import Mosaic
from ptychoflow.dashboard.outputs.news import News
from ptychoflow.dashboard.outputs.output import ConsumerAway, Output
from ptychoflow.dashboard.outputs.settings import PtychodusOutputSettings
from ptychoflow.streaming.durable_file import make_folder_durably
from ptychoflow.streaming.durable_hdf5 import durable_hdf5
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.frame_memory import frames_within
from ptychoflow.streaming.kept_perspective import KeptPerspective, kept_perspectives, read_kept
from ptychoflow.streaming.settings import RunContext

log = logging.getLogger(__name__)

BEST_FIRST = (MosaicKind.REFERENCE, MosaicKind.REFRESHED, MosaicKind.FIRST_PASS)
PART_BYTES = 32 << 20
"""Frames are copied in parts of this size."""
IMAGES_KEPT = 8
"""Perspectives whose images are kept until their frames have all come."""


class PtychodusOutput(Output):
    """Writes `FOLDER/RUN/perspective_0000/{diffraction,product}.h5`, for each perspective when its frames have come.

    Frames are read where the acquisition keeps them, and written once. The object is the ground truth's image, until
    there is one the network's; the product is written again when there is a better or a newer one.

    Raises:
        UserError: the folder cannot be made.
    """

    name: ClassVar[str] = "ptychodus"
    takes: ClassVar[tuple[type, ...]] = (Mosaic,)
    rest_s: float = 2.0

    def __init__(self, settings: PtychodusOutputSettings, *, run: RunContext) -> None:
        self._run = run
        self._folder = settings.folder / run.name
        with writing(self._folder):
            make_folder_durably(self._folder)
        self._images: OrderedDict[int, dict[MosaicKind, Mosaic]] = OrderedDict()
        self._photons: dict[int, float] = {}
        """Most counts of a frame, of perspectives whose frames have been written."""
        self._written: dict[int, Mosaic] = {}
        """What the products show."""

    def send(self, news: News) -> None:
        """Take in an image, and write what can be written. Raises `ConsumerAway` where the disk does not take it."""
        if not isinstance(news.what, Mosaic):
            raise ValueError(f"{news.what} is not for this output")
        self._keep(news.what)
        self._write_all()

    def close(self) -> None:
        """Write what came last."""
        try:
            self._write_all()
        except ConsumerAway as error:
            log.warning("output ptychodus: %s", error)

    def _keep(self, mosaic: Mosaic) -> None:
        perspective = mosaic.info.perspective
        self._images.setdefault(perspective, {})[mosaic.info.kind] = mosaic
        self._images.move_to_end(perspective)
        while len(self._images) > IMAGES_KEPT:
            gone, _ = self._images.popitem(last=False)
            self._written.pop(gone, None)

    def _write_all(self) -> None:
        for folder in kept_perspectives(self._run.folder.kept_perspectives):
            images = self._images.get(int(folder.name), {})
            best = next((images[kind] for kind in BEST_FIRST if kind in images), None)
            if best is None or self._written.get(best.info.perspective) is best:
                continue
            try:
                self._write(read_kept(folder), best)
            except (OSError, UserError) as error:
                raise ConsumerAway(f"cannot hand over perspective {best.info.perspective}: {error}") from error

    def _write(self, kept: KeptPerspective, best: Mosaic) -> None:
        perspective = kept.about.perspective
        folder = self._folder / f"perspective_{perspective:04d}"
        make_folder_durably(folder)
        if kept.frames.exists():
            with durable_hdf5(folder / "diffraction.h5") as file:
                self._photons[perspective] = _write_diffraction(file, kept)
            kept.frames.unlink()
        with durable_hdf5(folder / "product.h5") as file:
            write_product(file, best, self._scanned(kept), run=self._run.name)
        self._written[perspective] = best
        log.info("handed over perspective %d with its %s image", perspective, best.info.kind)

    def _scanned(self, kept: KeptPerspective) -> Scanned:
        probe = kept.probe
        if probe is None:
            probe = np.ones((1, *kept.about.stored_shape[1:]), np.complex64)
        return Scanned(
            indices=kept.indices,
            positions_px=kept.positions_px,
            probe=probe,
            angle_deg=kept.about.angle_deg,
            energy_eV=kept.about.energy_eV,
            detector_distance_m=kept.about.detector_distance_m,
            photons=self._photons.get(kept.about.perspective, 0.0),
        )


def _write_diffraction(file: h5py.File, kept: KeptPerspective) -> float:
    """Write the frames in the order of their indices; return the most counts that one of them has."""
    stored, places = kept.stored(), kept.places
    count, (height, width) = len(places), stored.shape[1:]
    patterns = file.create_dataset("patterns", (count, height, width), stored.dtype)
    pixel_height_m, pixel_width_m = kept.about.detector_pixel_size_m
    patterns.attrs.update(detector_pixel_height_m=pixel_height_m, detector_pixel_width_m=pixel_width_m)
    file["indexes"] = kept.indices.astype(np.int64)
    file["bad_pixels"] = np.zeros((height, width), bool) if kept.mask is None else kept.mask
    most = 0.0
    at_once = frames_within(PART_BYTES, (height, width), stored.dtype.itemsize)
    for start in range(0, count, at_once):
        part = stored[places[start : start + at_once]]
        patterns[start : start + len(part)] = part
        most = max(most, float(part.sum(axis=(1, 2), dtype=np.float64).max()))
    return most
