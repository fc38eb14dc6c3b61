"""A starting probe for scans that come without one, and how frames lie to positions, from the frames alone.

The mean frame shows the lens: its square root is the wave's amplitude at the detector. What it does not show is the
defocus, without which phase retrieval does not converge. Out of focus, every frame holds a shadow of the object: the
ray through detector pixel r crosses the object at p − d·N·r for the position p, if the lens has the phase π·d·r². From
one position to the next the shadow moves by Δp / (d·N), and correlating frames of neighbouring positions gives d with
its sign. It does so only if rows and columns of the frames run as y and x of the positions do: the same correlation
tells whether they are exchanged or one of them is mirrored. Both mirrored is the same as d of the other sign.

Frames are binned first, so that large ones need not be in memory together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.spatial import KDTree

from ptychoflow.acquisition.binning import bin_frame
from ptychoflow.acquisition.propagation import back_propagate, propagate
from ptychoflow.acquisition.repeats import find_places

FloatArray = npt.NDArray[np.float64]

ANCHORS = 64
NEIGHBOURS = 3
CANDIDATES = np.concatenate([-np.arange(0.9, 0.09, -0.02), np.arange(0.1, 0.91, 0.02)])
"""Diameters of the probe over the field of view that are tried, with the sign of the defocus."""
RANGE = (0.12, 0.88)
"""Diameters beyond these are at the edge of what is tried."""
FILL_PX = 2.0
"""How far around a masked pixel the mean frame is looked at."""
MINIMUM_OVERLAP = 0.05
"""A shadow that moves so far that less of the lens than this is common to two frames says nothing."""
LEAST_DEFOCUS = 0.1
"""A lens whose phase gives less than this for the diameter is not out of focus to one side."""
CLEAR_SCORE = 0.05
CLEAR_BEFORE_OTHER_SIGN = 1.5
CLEAR_BEFORE_MEDIAN = 2.0
"""A fit is clear if it is so much better than those with the other sign of the defocus, and than the usual one."""


class Turn(Enum):
    """How y and x of the positions are changed so that they run as rows and columns of the frames do."""

    NONE = (False, 1)
    MIRRORED = (False, -1)
    EXCHANGED = (True, 1)
    EXCHANGED_MIRRORED = (True, -1)

    def apply(self, steps: FloatArray) -> FloatArray:
        """Return steps (..., 2), exchanged, then with the sign of x."""
        exchanged, sign_x = self.value
        return (steps[..., ::-1] if exchanged else steps) * (1, sign_x)


@dataclass(frozen=True)
class Fit:
    """How well the shadows of neighbouring frames agree under one turn: 1 if they are the same."""

    diameter: float
    """Over the field of view, with the sign of the defocus."""
    score: float
    other_sign: float
    """The best score with the other sign of the defocus."""
    median: float

    @property
    def at_edge(self) -> bool:
        """Whether the diameter lies at the edge of what was tried."""
        return not RANGE[0] <= abs(self.diameter) <= RANGE[1]

    @property
    def clear(self) -> bool:
        """Whether the fit stands out from the others."""
        other = max(CLEAR_BEFORE_OTHER_SIGN * self.other_sign, CLEAR_BEFORE_MEDIAN * self.median, CLEAR_SCORE)
        return not self.at_edge and self.score > other


@dataclass(frozen=True)
class ProbeEstimate:
    """A probe (1, y, x), and the fit that it comes from."""

    probe: npt.NDArray[np.complex64]
    fit: Fit

    @property
    def diameter_fraction(self) -> float:
        """The diameter (four standard deviations) over the field of view."""
        return abs(self.fit.diameter)


class GatheredFrames:
    """Frames at positions, binned, and their mean at full size."""

    def __init__(self) -> None:
        self._binned: list[npt.NDArray[np.float32]] = []
        self._positions: list[FloatArray] = []
        self._total: FloatArray | None = None

    def __len__(self) -> int:
        return len(self._binned)

    def add(self, frame: npt.NDArray[np.generic], position_px: FloatArray) -> None:
        """Add a frame (y, x) whose masked pixels are 0."""
        self._binned.append(bin_frame(frame)[0])
        self._positions.append(position_px)
        counts = frame.astype(np.float64)
        self._total = counts if self._total is None else self._total + counts

    @property
    def mean(self) -> FloatArray:
        """Mean frame (y, x)."""
        if self._total is None:
            raise ValueError("there are no frames")
        return np.clip(self._total / len(self._binned), 0.0, None)

    @property
    def positions_px(self) -> FloatArray:
        """(n, 2)."""
        return np.array(self._positions)

    def shadows(self) -> tuple[npt.NDArray[np.float32], FloatArray]:
        """Return what each frame shows beside the lens, in units of its noise (n, y, x), and the lens (y, x)."""
        frames = np.array(self._binned)
        mean = np.clip(frames.mean(axis=0, dtype=np.float64), 0.0, None)
        frames -= mean.astype(np.float32)
        frames /= np.sqrt(mean + 1.0).astype(np.float32)
        return frames, np.sqrt(mean)


def choose_frames(positions_px: FloatArray, *, most: int | None = None) -> npt.NDArray[np.intp]:
    """Return the indices of frames, spread over the scan and with their neighbours, that an estimate needs.

    They are `most` at most.
    """
    anchors, neighbours = _pairs(positions_px, anchors=ANCHORS if most is None else most // (NEIGHBOURS + 1))
    return np.union1d(anchors, neighbours)


def estimate_probe(frames: GatheredFrames, mask: npt.NDArray[np.bool_] | None = None) -> ProbeEstimate:
    """Estimate the probe; at least two frames are needed.

    Its energy is that of the mean frame, which is filled in from around the pixels that `mask` (y, x) ignores.
    """
    return probe_of_fit(frames, find_fits(frames, mask)[Turn.NONE], mask)


def probe_of_fit(frames: GatheredFrames, fit: Fit, mask: npt.NDArray[np.bool_] | None = None) -> ProbeEstimate:
    """Return the probe with the lens of the frames and the defocus of a fit."""
    mean = _filled(frames.mean, mask)
    phase = np.pi * fit.diameter / (4 * _standard_deviation(mean)) * _squared_radius(mean.shape)
    probe = back_propagate(np.sqrt(mean) * np.exp(1j * phase))
    return ProbeEstimate(probe.astype(np.complex64)[np.newaxis], fit)


def diameter_of(probe: npt.NDArray[np.complex64]) -> float | None:
    """Return the diameter over the field of view that the phase of a probe's lens gives, with the defocus's sign.

    The inverse of `probe_of_fit`, of the first mode of a probe (mode, y, x). None if it is hardly out of focus.
    """
    wave = propagate(probe[0].astype(np.complex128))
    intensity = np.abs(wave) ** 2
    if not intensity.any():
        return None
    slope = weight = 0.0
    for axis, pixels in enumerate(wave.shape):
        steps = np.moveaxis(wave, axis, 0)
        steps = steps[1:] * steps[:-1].conj()
        steps = steps * np.exp(-1j * np.angle(steps.sum()))  # a probe beside its middle is a ramp of the phase
        strength = np.abs(steps)
        radius = np.arange(pixels - 1)[:, np.newaxis] + 0.5 - pixels // 2
        radius = radius - np.sum(strength * radius) / strength.sum()
        slope += float(np.sum(strength * radius * np.angle(steps)))
        weight += float(np.sum(strength * radius**2))
    diameter = 2 * _standard_deviation(intensity) / np.pi * slope / max(weight, np.finfo(float).tiny)
    return diameter if abs(diameter) > LEAST_DEFOCUS else None


def find_fits(frames: GatheredFrames, mask: npt.NDArray[np.bool_] | None = None) -> dict[Turn, Fit]:
    """Return the best fit under every turn of the positions."""
    mean = _filled(frames.mean, mask)
    shadows, amplitude = frames.shadows()
    shape = np.array(amplitude.shape)
    binning = max(1, mean.shape[0] // amplitude.shape[0])
    # A shadow moves by this times the step over the field of view, over the diameter: in binned pixels.
    reach_px = 4 * _standard_deviation(mean) / binning
    energy = np.sqrt(np.sum(shadows.astype(np.float64) ** 2, axis=(1, 2)))
    lens = _cross_correlation(amplitude, amplitude) / np.sum(amplitude**2)
    positions_px = frames.positions_px
    agreement = {turn: np.zeros(len(CANDIDATES)) for turn in Turn}
    overlap = {turn: np.zeros(len(CANDIDATES)) for turn in Turn}
    anchors, neighbours = _pairs(positions_px)
    # One norm for all pairs: those with strong shadows tell more.
    norm = max(float(np.mean(energy[anchors] * energy[neighbours])), np.finfo(float).tiny)
    for anchor, neighbour in zip(anchors, neighbours, strict=True):
        correlation = _cross_correlation(shadows[anchor], shadows[neighbour]) / norm
        step = (positions_px[neighbour] - positions_px[anchor]) / mean.shape
        for turn in Turn:
            shift = np.round(turn.apply(step) * reach_px / CANDIDATES[:, np.newaxis]).astype(int)
            inside = (np.abs(shift) < shape // 2).all(axis=1)
            row, column = (shift[inside] % shape).T
            agreement[turn][inside] += correlation[row, column]
            overlap[turn][inside] += lens[row, column]
    return {turn: _best(agreement[turn], overlap[turn], pairs=len(anchors)) for turn in Turn}


def _best(agreement: FloatArray, overlap: FloatArray, *, pairs: int) -> Fit:
    # Of a beam far off the middle, no pair may have enough in common.
    enough = overlap > MINIMUM_OVERLAP * max(overlap.max(), MINIMUM_OVERLAP * pairs)
    if not enough.any():
        return Fit(float(CANDIDATES[0]), 0.0, 0.0, 0.0)
    scores = np.where(enough, agreement / np.where(enough, overlap, 1.0), -np.inf)
    best = int(np.argmax(scores))
    other = scores[np.sign(CANDIDATES) != np.sign(CANDIDATES[best])].max()
    return Fit(float(CANDIDATES[best]), float(scores[best]), float(max(other, 0.0)), float(np.median(scores[enough])))


def _filled(mean: FloatArray, mask: npt.NDArray[np.bool_] | None) -> FloatArray:
    """Return the mean frame with masked pixels as bright as those around them."""
    if mask is None:
        return mean
    weight = ndimage.gaussian_filter((~mask).astype(np.float64), FILL_PX)
    around = ndimage.gaussian_filter(np.where(mask, 0.0, mean), FILL_PX) / np.maximum(weight, 1e-3)
    filled: FloatArray = np.where(mask, around, mean)
    return filled


def _squared_radius(shape: tuple[int, ...]) -> FloatArray:
    y, x = ((np.arange(pixels, dtype=np.float64) - pixels // 2) ** 2 for pixels in shape)
    return np.add.outer(y, x)


def _standard_deviation(mean: FloatArray) -> float:
    """Return the standard deviation of the direct beam in pixels, averaged over y and x."""
    return float(np.sqrt(np.sum(mean * _squared_radius(mean.shape)) / mean.sum() / 2))


def _pairs(positions_px: FloatArray, *, anchors: int = ANCHORS) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return indices of up to `anchors` anchors and of their neighbours, each (pairs,).

    Of repeated exposures at one place only the first counts: a step of nothing says nothing.
    """
    first = find_places(positions_px).first
    places = positions_px[first]
    count = min(len(places), anchors, ANCHORS)
    chosen = np.arange(count) * len(places) // count
    neighbours = min(NEIGHBOURS, len(places) - 1)
    _, nearest = KDTree(places).query(places[chosen], k=neighbours + 1)
    others = np.asarray(nearest).reshape(count, neighbours + 1)[:, 1:]
    return first[np.repeat(chosen, neighbours)], first[others.reshape(-1)]


def _cross_correlation(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> FloatArray:
    correlation: FloatArray = fft.irfft2(np.conj(fft.rfft2(first)) * fft.rfft2(second), s=first.shape)
    return correlation
