"""How badly a predicted patch explains its frame: a score that needs no ground truth.

The patch times the probe, propagated to the far field, is what the detector should have seen. Compared are amplitudes,
the square roots of counts, whose noise is the same everywhere: for counts of N photons the residual of a right patch is
about (number of lit pixels) / (4 N). A scan's residuals rank its frames and perspectives; their level depends on its
dose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

AXES = (-2, -1)


def forward_residuals(
    counts: npt.NDArray[Any],
    amplitude: npt.NDArray[np.floating],
    phase: npt.NDArray[np.floating],
    probe: npt.NDArray[np.complexfloating],
    mask: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the share of each frame's energy that its patch does not explain, (n,): 0 is perfect, 1 is nothing.

    The brightness of a frame is fitted, and a phase that is the same everywhere makes no difference. Dark frames get
    NaN.

    Args:
        counts: (n, y, x), zero frequency at pixel (y // 2, x // 2).
        amplitude: (n, target y, target x), the central part of the object under the frame; around it the object is
            taken to go on as it is at the patch's edge.
        phase: likewise, in radians.
        probe: (mode, y, x), of any brightness; modes add incoherently.
        mask: (y, x), true where a pixel is not to be looked at.
    """
    frame_shape = counts.shape[1:]
    patch = _surrounded(amplitude * np.exp(1j * phase.astype(np.float64)), frame_shape)
    wave = fft.fft2(fft.ifftshift(probe * patch[:, np.newaxis], axes=AXES), norm="ortho")
    modelled = np.sqrt(fft.fftshift((wave.real**2 + wave.imag**2).sum(axis=1), axes=AXES))
    measured = np.sqrt(np.maximum(counts.astype(np.float64), 0.0))
    if mask is not None:
        modelled, measured = (np.where(mask, 0.0, one) for one in (modelled, measured))
    energy, explained = (measured**2).sum(axis=AXES), (measured * modelled).sum(axis=AXES)
    with np.errstate(invalid="ignore", divide="ignore"):
        # of the best brightness s = <measured, modelled> / <modelled, modelled>
        shares: npt.NDArray[np.float64] = 1.0 - explained**2 / ((modelled**2).sum(axis=AXES) * energy)
    return np.where(energy > 0, np.clip(shares, 0.0, 1.0), np.nan)


def _surrounded(patch: npt.NDArray[np.complexfloating], shape: tuple[int, ...]) -> npt.NDArray[np.complexfloating]:
    """Continue patches (n, y, x) to `shape`; pixel N // 2 of a patch stays at pixel N // 2."""
    before = [whole // 2 - part // 2 for whole, part in zip(shape, patch.shape[1:], strict=True)]
    after = [whole - part - first for whole, part, first in zip(shape, patch.shape[1:], before, strict=True)]
    return np.pad(patch, [(0, 0), *zip(before, after, strict=True)], mode="edge")
