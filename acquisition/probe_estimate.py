"""A starting probe for scans that come without one, from the frames alone.

The mean frame shows the lens: its square root is the wave's amplitude at the detector. What it does not show is the
defocus, without which phase retrieval does not converge. Out of focus, every frame holds a shadow of the object: the
ray through detector pixel r crosses the object at p − d·N·r for the position p, if the lens has the phase π·d·r². From
one position to the next the shadow moves by Δp / (d·N), and correlating frames of neighbouring positions gives d with
its sign.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.spatial import KDTree

from ptychoflow.acquisition.propagation import back_propagate

FloatArray = npt.NDArray[np.float64]

ANCHORS = 64
NEIGHBOURS = 3
CANDIDATES = np.concatenate([-np.arange(0.9, 0.09, -0.02), np.arange(0.1, 0.91, 0.02)])
"""Diameters of the probe over the field of view that are tried, with the sign of the defocus."""
FILL_PX = 2.0
"""How far around a masked pixel the mean frame is looked at."""
MINIMUM_OVERLAP = 0.05
"""A shadow that moves so far that less of the lens than this is common to two frames says nothing."""


class ProbeEstimate(NamedTuple):
    """A probe (1, y, x), and the diameter (four standard deviations) over the field of view that was found."""

    probe: npt.NDArray[np.complex64]
    diameter_fraction: float


def choose_frames(positions_px: FloatArray) -> npt.NDArray[np.intp]:
    """Return the indices of frames, spread over the scan and with their neighbours, that `estimate_probe` needs."""
    anchors, neighbours = _pairs(positions_px)
    return np.union1d(anchors, neighbours)


def estimate_probe(
    frames: npt.NDArray[np.generic], positions_px: FloatArray, mask: npt.NDArray[np.bool_] | None = None
) -> ProbeEstimate:
    """Estimate the probe from frames (n, y, x) at `positions_px` (n, 2); at least two frames are needed.

    Its energy is that of the mean frame, which is filled in from around the pixels that `mask` (y, x) ignores.
    """
    mean = np.clip(frames.mean(axis=0, dtype=np.float64), 0.0, None)
    if mask is not None:
        mean = _filled(mean, mask)
    radius = [np.arange(pixels) - pixels // 2 for pixels in mean.shape]
    spread = _standard_deviation(mean, radius)
    diameter = _find_diameter(frames, positions_px, mean=mean, spread=spread, mask=mask)
    defocus = diameter / (4 * spread)
    phase = np.pi * defocus * (radius[0][:, np.newaxis] ** 2 + radius[1] ** 2)
    probe = back_propagate(np.sqrt(mean) * np.exp(1j * phase))
    return ProbeEstimate(probe.astype(np.complex64)[np.newaxis], abs(diameter))


def _filled(mean: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the mean frame with masked pixels as bright as those around them."""
    weight = ndimage.gaussian_filter((~mask).astype(np.float64), FILL_PX)
    around = ndimage.gaussian_filter(np.where(mask, 0.0, mean), FILL_PX) / np.maximum(weight, 1e-3)
    filled: FloatArray = np.where(mask, around, mean)
    return filled


def _standard_deviation(mean: FloatArray, radius: list[npt.NDArray[np.int_]]) -> float:
    """Return the standard deviation of the direct beam in pixels, averaged over y and x."""
    variances = [np.sum(mean.sum(axis=1 - axis) * coordinate**2) / mean.sum() for axis, coordinate in enumerate(radius)]
    return float(np.sqrt(np.mean(variances)))


def _pairs(positions_px: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return indices of anchors and of their neighbours, each (pairs,)."""
    count = min(len(positions_px), ANCHORS)
    anchors = np.arange(count) * len(positions_px) // count
    neighbours = min(NEIGHBOURS, len(positions_px) - 1)
    _, nearest = KDTree(positions_px).query(positions_px[anchors], k=neighbours + 1)
    return np.repeat(anchors, neighbours), nearest[:, 1:].reshape(-1)


def _find_diameter(
    frames: npt.NDArray[np.generic],
    positions_px: FloatArray,
    *,
    mean: FloatArray,
    spread: float,
    mask: npt.NDArray[np.bool_] | None,
) -> float:
    """Return the candidate diameter at which the shadows of neighbouring frames agree best."""
    shape = np.array(mean.shape)
    lens = _autocorrelation(np.sqrt(mean))
    agreement = np.zeros(len(CANDIDATES))
    overlap = np.zeros(len(CANDIDATES))
    for anchor, neighbour in zip(*_pairs(positions_px), strict=True):
        shadows = [_shadow(frames[index], mean, mask) for index in (anchor, neighbour)]
        correlation = _cross_correlation(*shadows)
        step_px = positions_px[neighbour] - positions_px[anchor]
        shift = np.round(step_px / (CANDIDATES[:, np.newaxis] / (4 * spread) * shape)).astype(int)
        inside = (np.abs(shift) < shape // 2).all(axis=1)
        row, column = (shift[inside] % shape).T
        agreement[inside] += correlation[row, column]
        overlap[inside] += lens[row, column]
    enough = overlap > MINIMUM_OVERLAP * overlap.max()
    scores = np.where(enough, agreement / np.where(enough, overlap, 1.0), -np.inf)
    return float(CANDIDATES[np.argmax(scores)])


def _shadow(frame: npt.NDArray[np.generic], mean: FloatArray, mask: npt.NDArray[np.bool_] | None) -> FloatArray:
    """Return what a frame shows beside the lens, in units of its noise; nothing where it is masked."""
    shadow: FloatArray = (frame.astype(np.float64) - mean) / np.sqrt(mean + 1.0)
    if mask is not None:
        shadow[mask] = 0.0
    return shadow


def _cross_correlation(first: FloatArray, second: FloatArray) -> FloatArray:
    correlation: FloatArray = fft.irfft2(np.conj(fft.rfft2(first)) * fft.rfft2(second), s=first.shape)
    return correlation


def _autocorrelation(image: FloatArray) -> FloatArray:
    return _cross_correlation(image, image)
