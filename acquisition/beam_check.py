"""Where the direct beam is in the mean frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BRIGHT_PERCENTILE = 99.5
BRIGHT_SHARE = 0.2
"""Pixels brighter than this share of the brightest belong to the direct beam."""
LEAST_SHIFT_PX = 2.0
LEAST_SHIFT_SHARE = 0.03
"""Of the frame; scattering moves the centre of the mean frame by less."""
CORNER_SHARE = 0.15


def beam_centre_px(mean: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the centre (y, x) of the direct beam in a mean frame, also if it is cut by the frame's edges.

    None if the frame is empty.
    """
    brightest = np.percentile(mean, BRIGHT_PERCENTILE)
    bright = mean if brightest <= 0 else np.clip(mean, 0, brightest)
    bright = np.where(bright >= BRIGHT_SHARE * bright.max(), bright, 0.0)
    if not bright.any():
        return None
    # The mean of the angle: what leaves the frame at one side comes back at the other.
    angles = []
    for axis, length in enumerate(bright.shape):
        profile = bright.sum(axis=1 - axis)
        angles.append(np.angle(np.sum(profile * np.exp(2j * np.pi * np.arange(length) / length))))
    y, x = (float(angle / (2 * np.pi) * length % length) for angle, length in zip(angles, bright.shape, strict=True))
    return y, x


def centre_notes(mean: npt.NDArray[np.float64], expected_px: tuple[int, int]) -> list[str]:
    """Return what to set if the direct beam is not at `expected_px` (y, x) of the stored frames."""
    centre = beam_centre_px(mean)
    if centre is None:
        return []
    lengths = np.array(mean.shape)
    shift = (np.array(centre) - expected_px + lengths / 2) % lengths - lengths / 2
    if (np.abs(shift) <= np.maximum(LEAST_SHIFT_PX, LEAST_SHIFT_SHARE * lengths)).all():
        return []
    from_corner = np.minimum(centre, lengths - np.array(centre))
    if (from_corner < CORNER_SHARE * lengths).all():
        return [
            "The direct beam is in the corners of the frames, as if zero frequency were at pixel (0, 0): "
            "--set source.preprocess.zero_frequency_in_corner=true"
        ]
    y, x = np.rint(np.array(expected_px) + shift).astype(int)
    return [
        f"The direct beam is off the middle of the frame by ({shift[0]:.0f}, {shift[1]:.0f}) px (y, x): "
        f"--set source.preprocess.centre_px=[{y % lengths[0]},{x % lengths[1]}]"
    ]
