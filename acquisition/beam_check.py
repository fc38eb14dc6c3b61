"""Where the direct beam is in the mean frame, and where a stored probe is in its array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.source_settings import ProbeUse
from ptychoflow.streaming.set_option import set_option

BRIGHT_PERCENTILE = 99.5
BRIGHT_SHARE = 0.2
"""Pixels brighter than this share of the brightest belong to the direct beam."""
LEAST_SHIFT_PX = 2.0
LEAST_SHIFT_SHARE = 0.03
"""Of the frame; scattering moves the centre of the mean frame by less."""
CORNER_SHARE = 0.15
PROBE_SHARE = 0.25
"""Of its array; a probe farther off the middle than this was not put there."""


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
        + set_option("source.preprocess.centre_px", f"[{y % lengths[0]},{x % lengths[1]}]")
    ]


def off_middle_notes(probe: npt.NDArray[np.complex64]) -> list[str]:
    """Return a note if a stored probe (mode, y, x) is far off the middle of its array, as one never shifted."""
    centre = beam_centre_px(np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0))
    if centre is None:
        return []
    lengths = np.array(probe.shape[-2:])
    shift = (np.array(centre) - lengths // 2 + lengths / 2) % lengths - lengths / 2
    if (np.abs(shift) <= PROBE_SHARE * lengths).all():
        return []
    return [
        f"The file's probe is off the middle of its array by ({shift[0]:.0f}, {shift[1]:.0f}) px (y, x), as if it "
        f"had been stored for a Fourier transform: --set source.probe={ProbeUse.IGNORE} estimates one"
    ]
