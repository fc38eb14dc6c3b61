"""The simulated probe: the image of a lens, out of focus."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.propagation import back_propagate
from ptychoflow.acquisition.source_settings import ProbeKind, ProbeSettings


def with_photons(probe: npt.NDArray[np.complexfloating], photons: float) -> npt.NDArray[np.complex64]:
    """Return a probe (mode, y, x) scaled so that its squared modulus adds up to `photons`."""
    wave = probe.astype(np.complex128)
    return np.asarray(wave * np.sqrt(photons / np.sum(np.abs(wave) ** 2)), np.complex64)


def make_probe(settings: ProbeSettings, frame_shape_px: tuple[int, int]) -> npt.NDArray[np.complexfloating]:
    """Return the probe (1, y, x), of any brightness.

    The lens lights a disc on the detector (a ring for a zone plate) with a phase of π·d·r², r in detector pixels:
    defocus. A ray from radius r crosses the specimen d·r fields of view from the axis, so d follows from the
    diameter wanted.
    """
    height, width = frame_shape_px
    rows = np.arange(height)[:, np.newaxis] - height // 2
    columns = np.arange(width) - width // 2
    radius = np.hypot(rows, columns)
    lens_radius = settings.pupil_fraction * min(height, width) / 2
    lens = _disc(radius, lens_radius)
    if settings.kind is ProbeKind.ZONE_PLATE:
        lens -= _disc(radius, lens_radius * settings.central_stop_fraction)
    defocus = settings.diameter_fraction / (2 * lens_radius)
    probe = back_propagate((lens * np.exp(1j * np.pi * defocus * radius**2)).astype(np.complex128))
    return probe[np.newaxis]


def _disc(radius: npt.NDArray[np.float64], disc_radius: float) -> npt.NDArray[np.float64]:
    """Return a disc with an edge one pixel wide."""
    return np.clip(disc_radius - radius + 0.5, 0.0, 1.0)
