"""Image quality of a stitched image against a reference: PSNR, SSIM and correlation.

Both images are compared on the integer grid of the stitched image, over the area that enough frames cover. A reference
whose origin is not an integer is first moved to that grid with cubic splines (amplitude as it is, phase as unit
phasors); one whose origin is an integer is used as it is. A constant phase is not observable: it is removed on the
circle before anything is measured. Phase differences are taken on the circle too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.metrics import structural_similarity

from ptychoflow.inference_edge.stitching.mosaic import StitchedImage, bounding_box
from ptychoflow.streaming.codec import MalformedMessage
from ptychoflow.streaming.events import Channels, Quality

Image = npt.NDArray[np.float64]
Area = npt.NDArray[np.bool_]

SSIM_WINDOW_PX = 7
MAX_PSNR_DB = 200.0
_ON_GRID_PX = 1e-6
_ROUNDING = 1e-6
"""Of a value of a stitched image, whose sums are float32: what varies by less is constant."""


@dataclass(frozen=True)
class ReferenceImage:
    """What a perspective should look like. Pixel (i, j) shows the object at position `origin_px + (i, j)`.

    `amplitude` and `phase` (radians) are (y, x).
    """

    amplitude: npt.NDArray[np.floating]
    phase: npt.NDArray[np.floating]
    origin_px: tuple[float, float]


def reference_from_arrays(arrays: Mapping[str, npt.NDArray[Any]], origin_px: tuple[float, float]) -> ReferenceImage:
    """Take the arrays of a `Reference` message and bring them to the integer grid.

    Raises:
        MalformedMessage: a channel is missing, they are no real images of one shape, or the origin is not finite.
    """
    if missing := {"amplitude", "phase"} - arrays.keys():
        raise MalformedMessage(f"reference without {', '.join(sorted(missing))}")
    amplitude, phase = arrays["amplitude"], arrays["phase"]
    if amplitude.ndim != 2 or amplitude.shape != phase.shape:
        raise MalformedMessage(f"reference: amplitude is {amplitude.shape}, phase {phase.shape}")
    if np.iscomplexobj(amplitude) or np.iscomplexobj(phase):
        raise MalformedMessage(f"reference: amplitude is {amplitude.dtype}, phase {phase.dtype}, expected real ones")
    if not all(map(math.isfinite, origin_px)):
        raise MalformedMessage("reference: its origin is not finite")
    with np.errstate(over="ignore"):
        # what is too large for it becomes infinite, which is as good as not there
        amplitude, phase = (channel.astype(np.float32, copy=False) for channel in (amplitude, phase))
    return on_integer_grid(ReferenceImage(amplitude, phase, origin_px))


@dataclass(frozen=True)
class Comparison:
    """A stitched image and its reference on the same grid, global phase aligned; float64 and bool (y, x).

    `phase` is the stitched phase minus the global constant, on the 2π branch nearest to `reference_phase`. All four are
    0 outside `area`.
    """

    amplitude: Image
    phase: Image
    reference_amplitude: Image
    reference_phase: Image
    area: Area
    origin_px: tuple[int, int]
    global_phase_rad: float
    """The constant that was removed."""


def compare(image: StitchedImage, reference: ReferenceImage, *, min_coverage: int) -> Comparison | None:
    """Bring both to the smallest common grid that holds the area covered by at least `min_coverage` frames.

    Returns:
        None where no pixel of the reference is covered by so many frames.
    """
    reference = on_integer_grid(reference)
    reference_origin_px = round(reference.origin_px[0]), round(reference.origin_px[1])
    here, there, origin = _overlap(
        image.coverage.shape, image.origin_px, reference.amplitude.shape, reference_origin_px
    )
    reference_amplitude, reference_phase = reference.amplitude[there], reference.phase[there]
    area = (image.coverage[here] >= min_coverage) & np.isfinite(reference_amplitude) & np.isfinite(reference_phase)
    if not area.any():
        return None
    box = bounding_box(area)
    area = area[box]
    amplitude, phase, reference_amplitude, reference_phase = (
        np.where(area, values[box], 0.0).astype(np.float64)
        for values in (image.amplitude[here], image.phase[here], reference_amplitude, reference_phase)
    )
    difference = np.exp(1j * (phase - reference_phase))
    global_phase_rad = float(np.angle(difference[area].sum()))
    aligned = reference_phase + np.angle(difference * np.exp(-1j * global_phase_rad))
    return Comparison(
        amplitude=amplitude,
        phase=np.where(area, aligned, 0.0),
        reference_amplitude=reference_amplitude,
        reference_phase=reference_phase,
        area=area,
        origin_px=(origin[0] + box[0].start, origin[1] + box[1].start),
        global_phase_rad=global_phase_rad,
    )


def measure(comparison: Comparison) -> Quality | None:
    """Return PSNR, SSIM and Pearson correlation of both channels.

    SSIM is scikit-image's map (7 × 7 uniform window, `data_range` = the reference's max − min over the area), averaged
    over those pixels of the area whose whole window lies in the area: on a full rectangle this is scikit-image's mean.
    A correlation with an image that is constant is 0. PSNR ends at 200 dB, also for equal images.

    Returns:
        None where a channel of the reference is constant over the area (its data range is 0), or where no SSIM window
        fits into the area.
    """
    inside = ndimage.binary_erosion(comparison.area, np.ones((SSIM_WINDOW_PX, SSIM_WINDOW_PX)))
    amplitude = _measure_channel(
        comparison.amplitude, comparison.reference_amplitude, area=comparison.area, inside=inside
    )
    phase = _measure_channel(comparison.phase, comparison.reference_phase, area=comparison.area, inside=inside)
    if amplitude is None or phase is None:
        return None
    return Quality(*(Channels(*figures) for figures in zip(amplitude, phase, strict=True)))


def _measure_channel(image: Image, reference: Image, *, area: Area, inside: Area) -> tuple[float, float, float] | None:
    values, expected = image[area], reference[area]
    data_range = float(np.ptp(expected))
    if data_range <= _ROUNDING * np.abs(expected).max() or not inside.any():
        return None
    _, ssim_map = structural_similarity(  # type: ignore[no-untyped-call]
        image, reference, win_size=SSIM_WINDOW_PX, data_range=data_range, full=True
    )
    return _psnr_db(values, expected, data_range), float(ssim_map[inside].mean()), _correlation(values, expected)


def _psnr_db(values: Image, expected: Image, data_range: float) -> float:
    relative_error = float(np.mean((values - expected) ** 2)) / data_range**2
    return -10 * math.log10(max(relative_error, 10 ** (-MAX_PSNR_DB / 10)))


def _correlation(values: Image, expected: Image) -> float:
    centred, expected_centred = values - values.mean(), expected - expected.mean()
    if centred.std() <= _ROUNDING * max(np.abs(values).max(), np.ptp(expected)):
        return 0.0
    return float(centred @ expected_centred / (np.linalg.norm(centred) * np.linalg.norm(expected_centred)))


def on_integer_grid(reference: ReferenceImage) -> ReferenceImage:
    """Return the reference with an integer origin; itself if it has one. The last row or column may be lost."""
    if all(abs(origin - round(origin)) < _ON_GRID_PX for origin in reference.origin_px):
        return reference
    grid_y, grid_x = (math.ceil(origin - _ON_GRID_PX) for origin in reference.origin_px)
    ahead_px = (max(0.0, grid_y - reference.origin_px[0]), max(0.0, grid_x - reference.origin_px[1]))
    cosine, sine = _sample_ahead(np.cos(reference.phase), ahead_px), _sample_ahead(np.sin(reference.phase), ahead_px)
    return ReferenceImage(_sample_ahead(reference.amplitude, ahead_px), np.arctan2(sine, cosine), (grid_y, grid_x))


def _sample_ahead(values: npt.NDArray[np.floating], ahead_px: tuple[float, float]) -> Image:
    """Return `values` at (i, j) + `ahead_px`, each within [0, 1), as far as that lies inside of `values`."""
    shift = [-ahead for ahead in ahead_px]
    moved: Image = ndimage.shift(values.astype(np.float64), shift, order=3, mode="mirror")
    height, width = (length - (ahead > 0) for length, ahead in zip(values.shape, ahead_px, strict=True))
    return moved[:height, :width]


def _overlap(
    shape: tuple[int, ...], origin: tuple[int, int], other_shape: tuple[int, ...], other_origin: tuple[int, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...], tuple[int, int]]:
    """Return the slices of two images that show the same area, and where it begins."""
    lower = np.maximum(origin, other_origin)
    upper = np.maximum(np.minimum(np.add(origin, shape), np.add(other_origin, other_shape)), lower)
    slices = [
        tuple(slice(int(low - start), int(high - start)) for low, high, start in zip(lower, upper, corner, strict=True))
        for corner in (origin, other_origin)
    ]
    return slices[0], slices[1], (int(lower[0]), int(lower[1]))
