"""The far-field forward model of `ptychoflow.acquisition.scan`, in numpy: exit wave to intensity.

The transform is unitary (`norm="ortho"`), so a frame holds as much energy as its exit wave.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft

ComplexArray = npt.NDArray[np.complexfloating]
RealArray = npt.NDArray[np.floating]

AXES = (-2, -1)


def propagate(exit_wave: ComplexArray) -> ComplexArray:
    """Return the wave at the detector, (..., y, x), zero frequency at pixel (y // 2, x // 2)."""
    detector_wave: ComplexArray = fft.fft2(np.fft.ifftshift(exit_wave, axes=AXES), norm="ortho")
    return np.fft.fftshift(detector_wave, axes=AXES)


def back_propagate(detector_wave: ComplexArray) -> ComplexArray:
    """Invert `propagate`: the wave in the object plane, (..., y, x)."""
    exit_wave: ComplexArray = fft.ifft2(np.fft.ifftshift(detector_wave, axes=AXES), norm="ortho")
    return np.fft.fftshift(exit_wave, axes=AXES)


def far_field_intensity(probe: ComplexArray, patches: ComplexArray) -> RealArray:
    """Return frames (n, y, x) of object `patches` (n, y, x) lit by `probe`.

    `probe` is (mode, y, x), or (n, mode, y, x) when it differs from frame to frame; modes add incoherently.
    """
    detector_wave = propagate(probe * patches[:, np.newaxis])
    intensity: RealArray = np.sum(detector_wave.real**2 + detector_wave.imag**2, axis=1)
    return intensity


def shift_image(image: ComplexArray, shift_px: npt.ArrayLike) -> ComplexArray:
    """Return `image` (..., y, x) moved by `shift_px`, an array (..., 2) of (y, x), with a Fourier phase ramp.

    The leading axes of `image` and of `shift_px` are broadcast. Exact for an image that is band-limited and
    small against its frame; what leaves at one side comes back at the other.
    """
    shift = np.asarray(shift_px, dtype=np.float64)
    height, width = image.shape[-2:]
    ramp_y = np.exp(-2j * np.pi * np.fft.fftfreq(height) * shift[..., 0, np.newaxis])
    ramp_x = np.exp(-2j * np.pi * np.fft.fftfreq(width) * shift[..., 1, np.newaxis])
    ramp = (ramp_y[..., :, np.newaxis] * ramp_x[..., np.newaxis, :]).astype(image.dtype)
    moved: ComplexArray = fft.ifft2(fft.fft2(image) * ramp)
    return moved
