"""The pictures that the page shows: predictions, the reference on their grid, and differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.dashboard.mosaics import Channel, FloatImage, Mosaic
from ptychoflow.streaming.events import MosaicKind

LIMIT_PERCENTILES = (0.5, 99.5)
MAX_PIXELS_FOR_LIMITS = 250_000


class PictureKind(StrEnum):
    """What can be looked at: the images that the edge sends, and their differences from the reference."""

    FIRST_PASS = "first_pass"
    REFRESHED = "refreshed"
    REFERENCE = "reference"
    PREVIEW = "preview"
    DIFFERENCE_FIRST_PASS = "difference_first_pass"
    DIFFERENCE_REFRESHED = "difference_refreshed"
    RESIDUAL_FIRST_PASS = "residual_first_pass"
    RESIDUAL_REFRESHED = "residual_refreshed"


PREDICTION_OF = {
    PictureKind.FIRST_PASS: MosaicKind.FIRST_PASS,
    PictureKind.REFRESHED: MosaicKind.REFRESHED,
    PictureKind.DIFFERENCE_FIRST_PASS: MosaicKind.FIRST_PASS,
    PictureKind.DIFFERENCE_REFRESHED: MosaicKind.REFRESHED,
    PictureKind.RESIDUAL_FIRST_PASS: MosaicKind.FIRST_PASS,
    PictureKind.RESIDUAL_REFRESHED: MosaicKind.REFRESHED,
}
RETRIEVED = {PictureKind.REFERENCE: MosaicKind.REFERENCE, PictureKind.PREVIEW: MosaicKind.PREVIEW}
DIFFERENCES = frozenset((PictureKind.DIFFERENCE_FIRST_PASS, PictureKind.DIFFERENCE_REFRESHED))
RESIDUALS = frozenset((PictureKind.RESIDUAL_FIRST_PASS, PictureKind.RESIDUAL_REFRESHED))


@dataclass(frozen=True)
class Picture:
    """An image to show, float32 (y, x), with the colour limits that suit it."""

    values: FloatImage
    limits: tuple[float, float]
    revisions: tuple[int, ...]
    """Of the images that it is made of: they change whenever the values do."""


def make_picture(images: Mapping[MosaicKind, Mosaic], kind: PictureKind, channel: Channel) -> Picture | None:
    """Return what to show of one perspective, or None while an image that it needs is not there.

    The reference and its preview are shown on the grid of the newest prediction, so that both lie side by side pixel
    by pixel; predictions have the colour limits of the reference, or else of its preview. A residual is the same in
    both channels.
    """
    reference = images.get(MosaicKind.REFERENCE)
    if kind in RETRIEVED:
        retrieved = images.get(RETRIEVED[kind])
        newest = images.get(MosaicKind.REFRESHED) or images.get(MosaicKind.FIRST_PASS)
        return None if retrieved is None else _reference_picture(retrieved, newest, channel)
    prediction = images.get(PREDICTION_OF[kind])
    if prediction is None:
        return None
    if kind in RESIDUALS:
        return _residual_picture(prediction)
    if kind not in DIFFERENCES:
        return _prediction_picture(prediction, reference or images.get(MosaicKind.PREVIEW), channel)
    return None if reference is None else _difference_picture(prediction, reference, channel)


def _residual_picture(prediction: Mosaic) -> Picture | None:
    if prediction.residual is None:
        return None
    values = prediction.residual.on_grid_of(prediction)
    return Picture(values, colour_limits(values), (prediction.revision,))


def _reference_picture(reference: Mosaic, prediction: Mosaic | None, channel: Channel) -> Picture:
    if prediction is None:
        image = reference.channels[channel]
        return Picture(image, colour_limits(image), (reference.revision,))
    image = on_grid_of(prediction, reference, channel)
    revisions = reference.revision, prediction.revision
    return Picture(image, _shared_limits(prediction, reference, channel), revisions)


def _prediction_picture(prediction: Mosaic, reference: Mosaic | None, channel: Channel) -> Picture:
    image = prediction.channels[channel]
    if reference is None:
        return Picture(image, colour_limits(image), (prediction.revision,))
    revisions = reference.revision, prediction.revision
    return Picture(image, _shared_limits(prediction, reference, channel), revisions)


def _difference_picture(prediction: Mosaic, reference: Mosaic, channel: Channel) -> Picture:
    """Limits are half the range of the reference to either side, so that a difference has the scale of the image."""
    low, high = _shared_limits(prediction, reference, channel)
    reach = (high - low) / 2
    revisions = reference.revision, prediction.revision
    return Picture(difference(prediction, reference, channel), (-reach, reach), revisions)


def on_grid_of(prediction: Mosaic, reference: Mosaic, channel: Channel) -> FloatImage:
    """Return the reference on the pixel grid of the prediction, bilinear, NaN outside the reference.

    The phase is interpolated as a unit phasor, so that a wrap does not tear.
    """
    offset_y, offset_x = (p - r for p, r in zip(prediction.info.origin_px, reference.info.origin_px, strict=True))
    image = reference.channels[channel]
    values = np.exp(1j * image) if channel is Channel.PHASE else image
    shifted = _shift_rows(_shift_rows(values, offset_y, prediction.shape_px[0]).T, offset_x, prediction.shape_px[1]).T
    aligned = np.angle(shifted) if channel is Channel.PHASE else shifted
    return np.asarray(aligned, dtype=np.float32)


def _shift_rows(values: npt.NDArray[Any], offset: float, count: int) -> npt.NDArray[Any]:
    """Return rows `offset` to `offset + count` of `values`, interpolated linearly, NaN outside."""
    whole = int(np.floor(offset))
    part = offset - whole
    near = _rows(values, whole, count)
    return near if part == 0 else (1 - part) * near + part * _rows(values, whole + 1, count)


def _rows(values: npt.NDArray[Any], start: int, count: int) -> npt.NDArray[Any]:
    rows = np.full((count, values.shape[1]), np.nan, dtype=values.dtype)
    first, last = max(start, 0), min(start + count, len(values))
    if first < last:
        rows[first - start : last - start] = values[first:last]
    return rows


def difference(prediction: Mosaic, reference: Mosaic, channel: Channel) -> FloatImage:
    """Return prediction − reference; a constant phase is not observable and is taken out, differences wrap at ±π."""
    aligned = on_grid_of(prediction, reference, channel)
    if channel is Channel.AMPLITUDE:
        return prediction.channels[channel] - aligned
    phasor = np.exp(1j * (prediction.channels[channel] - aligned))
    common = np.conj(np.nansum(phasor))
    return np.asarray(np.angle(phasor * common), dtype=np.float32)


def colour_limits(image: FloatImage) -> tuple[float, float]:
    """Return limits that leave out the extreme percentiles of the finite pixels; (0, 1) where there are none."""
    step = max(1, int(np.sqrt(image.size / MAX_PIXELS_FOR_LIMITS)))
    sample = image[::step, ::step]
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(finite, LIMIT_PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _shared_limits(prediction: Mosaic, reference: Mosaic, channel: Channel) -> tuple[float, float]:
    """Return the limits of the reference where the prediction covers it, so that equal values have equal colours.

    Of images that have nothing in common, those of the prediction.
    """
    image, predicted = on_grid_of(prediction, reference, channel), prediction.channels[channel]
    common = np.isfinite(image) & np.isfinite(predicted)
    return colour_limits(np.where(common, image, np.float32(np.nan)) if common.any() else predicted)
