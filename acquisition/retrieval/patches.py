"""Cut patches out of an object image at sub-pixel positions.

The complex image is interpolated with cubic B-splines, real and imaginary part alike (Unser, IEEE Signal Processing
Magazine 16(6), 22, 1999), so phase wraps do no harm. All pixels of a patch have the same offset from the grid:
a patch is four weighted rows by four weighted columns of spline coefficients, which are computed once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ptychoflow.acquisition.scan import ObjectImage

MARGIN_PX = 2
TAPS = 4
CHUNK = 64
TOLERANCE_PX = 1e-6
Complex = npt.NDArray[np.complex64]
Floats = npt.NDArray[np.float64]


def cut_patches(image: ObjectImage, positions_px: Floats, shape_px: tuple[int, int]) -> Complex:
    """Return complex64 patches (n, y, x) of `shape_px`; pixel (y // 2, x // 2) of a patch lies at its position.

    `positions_px` is (n, 2) as (y, x). At whole-pixel offsets a patch is the image's pixels to rounding.

    Raises:
        ValueError: a patch leaves the image; the text says which and by how much.
    """
    corners = positions_px - image.origin_px - np.asarray(shape_px) // 2
    _check_inside(corners, shape_px, image.values.shape)
    whole = np.floor(corners).astype(int)
    coefficients = _spline_coefficients(image.values)
    patches = np.empty((len(corners), *shape_px), np.complex64)
    for start in range(0, len(corners), CHUNK):
        part = slice(start, start + CHUNK)
        patches[part] = _interpolate(coefficients, whole[part], corners[part] - whole[part], shape_px)
    return patches


def _check_inside(corners: Floats, shape_px: tuple[int, int], image_shape_px: tuple[int, ...]) -> None:
    last = np.asarray(image_shape_px) - shape_px
    beyond = np.maximum(-corners, corners - last).max(axis=1)
    worst = int(np.argmax(beyond))
    if beyond[worst] > TOLERANCE_PX:
        raise ValueError(f"the patch of frame {worst} leaves the object image by {beyond[worst]:.1f} px")


def _spline_coefficients(values: Complex) -> Complex:
    filtered = ndimage.spline_filter(values, order=3, output=np.complex128, mode="mirror")
    return np.pad(filtered, MARGIN_PX, mode="reflect").astype(np.complex64)


def _interpolate(
    coefficients: Complex, whole: npt.NDArray[np.int_], offset: Floats, shape_px: tuple[int, int]
) -> Complex:
    height, width = shape_px
    windows = np.lib.stride_tricks.sliding_window_view(coefficients, (height + TAPS - 1, width + TAPS - 1))
    start = whole + MARGIN_PX - 1
    blocks = windows[start[:, 0], start[:, 1]]
    along_y, along_x = _weights(offset[:, 0]), _weights(offset[:, 1])
    rows = np.zeros((len(blocks), height, width + TAPS - 1), np.complex64)
    patches = np.zeros((len(blocks), height, width), np.complex64)
    for tap in range(TAPS):
        rows += along_y[:, tap, None, None] * blocks[:, tap : tap + height]
    for tap in range(TAPS):
        patches += along_x[:, tap, None, None] * rows[:, :, tap : tap + width]
    return patches


def _weights(offset: Floats) -> npt.NDArray[np.float32]:
    """Return the cubic B-spline at distances 1 + t, t, 1 - t, 2 - t of the four taps, (n, 4)."""
    t, u = offset, 1.0 - offset
    weights = np.stack([u**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * u**2 + 3 * u**3, t**3], axis=1) / 6
    return weights.astype(np.float32)
