"""Where on the object the light of a scan fell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.scan import ObjectImage


def illumination_map(
    image: ObjectImage, probe: npt.NDArray[np.complex64], positions_px: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the light that each pixel of `image` got, float64 (y, x): |probe|² summed over modes and frames.

    `probe` is (mode, y, x), `positions_px` (n, 2). Positions are rounded to whole pixels; light beside the image
    is left out.
    """
    intensity = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0)
    height, width = image.values.shape
    frame_height, frame_width = intensity.shape
    padded = np.zeros((height + 2 * frame_height, width + 2 * frame_width))
    centre = np.array([frame_height // 2, frame_width // 2])
    corners = np.rint(positions_px - image.origin_px).astype(int) - centre + [frame_height, frame_width]
    for y, x in np.clip(corners, 0, [height + frame_height, width + frame_width]):
        padded[y : y + frame_height, x : x + frame_width] += intensity
    return padded[frame_height : frame_height + height, frame_width : frame_width + width]


def well_lit(
    image: ObjectImage,
    probe: npt.NDArray[np.complex64],
    positions_px: npt.NDArray[np.float64],
    *,
    minimum_illumination: float,
) -> npt.NDArray[np.bool_]:
    """Return which pixels (y, x) of `image` got at least `minimum_illumination` of the usual light.

    The usual light is the median at the scan positions themselves.
    """
    light = illumination_map(image, probe, positions_px)
    pixels = np.rint(positions_px - image.origin_px).astype(int)
    inside = np.all((pixels >= 0) & (pixels < light.shape), axis=1)
    usual = np.median(light[pixels[inside, 0], pixels[inside, 1]]) if inside.any() else 0.0
    return (light >= minimum_illumination * usual) & (light > 0)
