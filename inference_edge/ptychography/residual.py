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
    # single precision is enough where the network's is, and takes half the time
    dtype = np.result_type(probe.dtype, phase.dtype, np.complex64)
    patch = np.empty(phase.shape, dtype)
    patch.real, patch.imag = amplitude * np.cos(phase), amplitude * np.sin(phase)
    shifted_patch = fft.ifftshift(_surrounded(patch, counts.shape[1:]), axes=AXES)[:, np.newaxis]
    wave = fft.fft2(fft.ifftshift(probe, axes=AXES).astype(dtype) * shifted_patch, norm="ortho", overwrite_x=True)
    modelled = (wave.real**2 + wave.imag**2).sum(axis=1)
    measured = fft.ifftshift(np.maximum(counts, 0), axes=AXES).astype(modelled.dtype)
    if mask is not None:
        looked_at = ~fft.ifftshift(mask)
        modelled, measured = modelled * looked_at, measured * looked_at
    energy, power, explained = (
        one.sum(axis=AXES, dtype=np.float64) for one in (measured, modelled, np.sqrt(measured * modelled))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        # of the best brightness s = <√measured, √modelled> / <√modelled, √modelled>
        shares: npt.NDArray[np.float64] = 1.0 - explained**2 / (power * energy)
    return np.where(energy > 0, np.clip(shares, 0.0, 1.0), np.nan)


def _surrounded(patch: npt.NDArray[np.complexfloating], shape: tuple[int, ...]) -> npt.NDArray[np.complexfloating]:
    """Continue patches (n, y, x) to `shape`; pixel N // 2 of a patch stays at pixel N // 2."""
    before = [whole // 2 - part // 2 for whole, part in zip(shape, patch.shape[1:], strict=True)]
    after = [whole - part - first for whole, part, first in zip(shape, patch.shape[1:], before, strict=True)]
    return np.pad(patch, [(0, 0), *zip(before, after, strict=True)], mode="edge")
