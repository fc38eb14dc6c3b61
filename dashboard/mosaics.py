"""The newest stitched images of the last few perspectives."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.dashboard.arrays import is_image
from ptychoflow.streaming.events import MosaicArea, MosaicImage, MosaicKind, ResidualMapped

log = logging.getLogger(__name__)

MAX_IMAGE_PX = 1 << 26
MAX_CELL_PX = 1 << 12
FloatImage = npt.NDArray[np.float32]


class Channel(StrEnum):
    """The two images that a transmission function consists of."""

    AMPLITUDE = "amplitude"
    PHASE = "phase"


@dataclass(frozen=True)
class ResidualLayer:
    """What is not explained of the frames over each cell, float32 (y, x); NaN where there is none."""

    values: FloatImage
    origin_px: tuple[int, int]
    cell_px: int

    def on_grid_of(self, mosaic: Mosaic) -> FloatImage:
        """Return it pixel by pixel of an image, NaN where the image is empty."""
        picked = [
            (round(origin) + np.arange(length) - own_origin) // self.cell_px
            for origin, length, own_origin in zip(mosaic.info.origin_px, mosaic.shape_px, self.origin_px, strict=True)
        ]
        known = [(at >= 0) & (at < length) for at, length in zip(picked, self.values.shape, strict=True)]
        rows, columns = (np.where(there, at, 0) for there, at in zip(known, picked, strict=True))
        shown = self.values[rows[:, np.newaxis], columns]
        covered = np.isfinite(mosaic.channels[Channel.PHASE]) & known[0][:, np.newaxis] & known[1]
        return np.where(covered, shown, np.float32(np.nan))


@dataclass(frozen=True)
class Mosaic:
    """One stitched image as the edge sent it: float32 (y, x) per channel, NaN where nothing covers the pixel."""

    info: MosaicImage
    channels: dict[Channel, FloatImage]
    revision: int
    """Counts the images that a store has taken in."""
    residual: ResidualLayer | None = None

    @property
    def shape_px(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.channels[Channel.PHASE].shape
        return height, width

    @property
    def nbytes(self) -> int:
        """Memory that the channels take."""
        return sum(image.nbytes for image in self.channels.values())


class MosaicStore:
    """Keeps the newest image of each kind for the last perspectives, within a bound of memory.

    Args:
        kept_perspectives: how many perspectives at most.
        max_bytes: older perspectives are let go beyond this; the newest one stays.
    """

    def __init__(self, *, kept_perspectives: int, max_bytes: int) -> None:
        self._kept_perspectives = kept_perspectives
        self._max_bytes = max_bytes
        self._perspectives: dict[int, dict[MosaicKind, Mosaic]] = {}
        self._revision = 0

    def take(self, event: MosaicImage | MosaicArea, arrays: Mapping[str, npt.NDArray[Any]]) -> Mosaic | None:
        """Take in an image, or what changed of one; return the whole as it is now, None where that cannot be told.

        An image of no pixels, one that lies nowhere, or an event read back from the run's folder without its arrays,
        shows nothing.
        """
        if not all(is_image(arrays.get(channel)) for channel in Channel) or not _lies_somewhere(event):
            return None
        if arrays[Channel.AMPLITUDE].shape != arrays[Channel.PHASE].shape:
            return None
        return self._put_area(event, arrays) if isinstance(event, MosaicArea) else self._put(event, arrays)

    def take_residual(self, event: ResidualMapped, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in where the frames of an image at hand are explained badly."""
        before, values = self._perspectives.get(event.perspective, {}).get(event.kind), arrays.get("residual")
        if before is None or not is_image(values) or not 1 <= event.cell_px <= MAX_CELL_PX:
            return
        self._revision += 1
        layer = ResidualLayer(values.astype(np.float32, copy=False), event.origin_px, event.cell_px)
        self._perspectives[event.perspective][event.kind] = replace(before, residual=layer, revision=self._revision)

    def _put(self, info: MosaicImage, arrays: Mapping[str, npt.NDArray[Any]]) -> Mosaic:
        """Take in an image; it replaces the one of the same perspective and kind."""
        self._revision += 1
        channels = {channel: arrays[channel].astype(np.float32, copy=False) for channel in Channel}
        images = self._perspectives.setdefault(info.perspective, {})
        before = images.get(info.kind)
        mosaic = Mosaic(info, channels, self._revision, None if before is None else before.residual)
        images[info.kind] = mosaic
        if info.kind is MosaicKind.REFERENCE:
            images.pop(MosaicKind.PREVIEW, None)
        self._let_go()
        return mosaic

    def _put_area(self, info: MosaicArea, arrays: Mapping[str, npt.NDArray[Any]]) -> Mosaic | None:
        """Take in what changed of an image; it is left as it was where the event before this one was missed."""
        before = self._perspectives.get(info.perspective, {}).get(info.kind)
        if before is None or before.info.revision != info.revision - 1:
            return None
        if min(info.image_shape_px) < 1 or info.image_shape_px[0] * info.image_shape_px[1] > MAX_IMAGE_PX:
            log.warning("dropped a part of an image of %s px, which cannot be shown", info.image_shape_px)
            return None
        whole = msgspec.structs.replace(
            before.info, model_version=info.model_version, origin_px=info.image_origin_px, revision=info.revision
        )
        grown = {channel: np.full(info.image_shape_px, np.nan, np.float32) for channel in Channel}
        for channel, image in grown.items():
            _paste(image, before.channels[channel], origin_px=before.info.origin_px, onto_px=info.image_origin_px)
            _paste(image, arrays[channel], origin_px=info.origin_px, onto_px=info.image_origin_px)
        return self._put(whole, {channel.value: image for channel, image in grown.items()})

    def all(self) -> list[Mosaic]:
        """Return all images kept, by perspective."""
        return [mosaic for index in sorted(self._perspectives) for mosaic in self._perspectives[index].values()]

    def of(self, perspective: int) -> dict[MosaicKind, Mosaic]:
        """Return the images kept of one perspective."""
        return dict(self._perspectives.get(perspective, {}))

    def _let_go(self) -> None:
        while len(self._perspectives) > 1 and self._too_much():
            del self._perspectives[min(self._perspectives)]

    def _too_much(self) -> bool:
        nbytes = sum(mosaic.nbytes for mosaic in self.all())
        return len(self._perspectives) > self._kept_perspectives or nbytes > self._max_bytes


def _lies_somewhere(event: MosaicImage | MosaicArea) -> bool:
    pixel_size_m = event.pixel_size_m if isinstance(event, MosaicImage) else ()
    return all(map(math.isfinite, (*event.origin_px, *pixel_size_m)))


def _paste(
    image: FloatImage, part: npt.NDArray[Any], *, origin_px: tuple[float, float], onto_px: tuple[float, float]
) -> None:
    """Write `part`, which begins at `origin_px`, into `image`, which begins at `onto_px`, as far as it lies inside."""
    top, left = round(origin_px[0] - onto_px[0]), round(origin_px[1] - onto_px[1])
    shown = part[max(0, -top) :, max(0, -left) :]
    target = image[max(0, top) :, max(0, left) :][: shown.shape[0], : shown.shape[1]]
    target[:] = shown[: target.shape[0], : target.shape[1]]
