"""A small scan of an asymmetric object, computed with numpy and scipy alone: no mistake of the project hides itself.

A wrong flip, transposition or sign shows in the correlation of what is retrieved with the object.
"""

from functools import cache
from pathlib import Path

import h5py
import numpy as np
from scan_files import DETECTOR, FRAMES, SOURCE, TRANSLATION
from scipy import ndimage

from ptychoflow.acquisition.frame_check import usable
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, compute_ground_truth
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan import Perspective

N, SIDE, PHOTONS = 64, 12, 2e5
ENERGY_J, WAVELENGTH_M, DISTANCE_M, PIXEL_M = 8000 * 1.602176634e-19, 1.5498025e-10, 2.0, 75e-6
OBJECT_PIXEL_M = WAVELENGTH_M * DISTANCE_M / (N * PIXEL_M)
RIGHT = 0.85
"""Least correlation of the phase with the object after four epochs; with nothing wrong in the file it is 0.89."""


@cache
def specimen() -> np.ndarray:
    """An R-like figure and discs, complex (y, x)."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:240, :240]
    phase = np.zeros(y.shape)
    for top, bottom, left, right in ((50, 190, 70, 84), (50, 62, 84, 140), (62, 100, 128, 140), (100, 112, 84, 140)):
        phase[top:bottom, left:right] -= 1.0
    phase[(abs((y - 112) - 1.3 * (x - 90)) < 9) & (y > 112) & (y < 185)] -= 0.8
    for _ in range(50):
        centre_y, centre_x, radius = *rng.uniform(10, 230, 2), rng.uniform(3, 8)
        phase[np.hypot(y - centre_y, x - centre_x) < radius] -= rng.uniform(0.2, 0.7)
    phase = ndimage.gaussian_filter(np.clip(phase, -2.2, 0), 0.8)
    return (1 + 0.1 * phase) * np.exp(1j * phase)


@cache
def probe() -> np.ndarray:
    """The defocused image of a round lens, complex (y, x)."""
    return probe_of_lens(0.15, defocus=85)


def probe_of_lens(radius: float, *, defocus: float) -> np.ndarray:
    """The image of a round lens whose radius is given over the field of view."""
    frequency = np.arange(N) / N - 0.5
    squared = np.add.outer(frequency**2, frequency**2)
    lens = np.where(squared < radius**2, np.exp(1j * np.pi * defocus * squared), 0)
    wave = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(lens)))
    return wave * np.sqrt(PHOTONS / np.sum(np.abs(wave) ** 2))


@cache
def positions_px() -> np.ndarray:
    """Positions (n, 2) as (y, x) on the object's grid: that of the patch's pixel (N // 2, N // 2)."""
    return grid_px(6.3)


def grid_px(step_px: float) -> np.ndarray:
    """Positions (n, 2) of a grid that is not quite regular."""
    rng = np.random.default_rng(4)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2) * step_px
    return grid + rng.uniform(-1, 1, grid.shape) + (85.0, 83.0)


@cache
def frames() -> np.ndarray:
    """Counts (n, y, x)."""
    return frames_lit_by(probe(), positions_px(), seed=9)


def frames_lit_by(wave: np.ndarray, where_px: np.ndarray, *, seed: int) -> np.ndarray:
    """Counts (n, y, x) of the specimen at positions (n, 2) under a probe (y, x)."""
    rng, image = np.random.default_rng(seed), specimen()
    offsets = np.arange(N) - N // 2
    out = []
    for y, x in where_px:
        rows, columns = np.meshgrid(y + offsets, x + offsets, indexing="ij")
        parts = [ndimage.map_coordinates(part, (rows, columns), order=5) for part in (image.real, image.imag)]
        far = np.fft.fft2(np.fft.ifftshift(wave * (parts[0] + 1j * parts[1])), norm="ortho")
        out.append(rng.poisson(np.abs(np.fft.fftshift(far)) ** 2))
    return np.array(out)


def translation(where_px: np.ndarray | None = None) -> np.ndarray:
    """Positions (n, 3) as a CXI file has them: x, y, z in metres; those of the scan by default."""
    metres = (positions_px() if where_px is None else where_px) * OBJECT_PIXEL_M
    return np.stack([metres[:, 1], metres[:, 0], np.zeros(len(metres))], axis=1)


def write_scan(path: Path, counts=None, *, dtype="uint16", with_probe=False, mask=None, positions_m=None) -> Path:
    """Write the scan as CXI, with other counts or positions if given."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file[FRAMES] = (frames() if counts is None else counts).astype(dtype)
        file[TRANSLATION] = translation() if positions_m is None else positions_m
        file[f"{DETECTOR}/distance"] = DISTANCE_M
        file[f"{DETECTOR}/x_pixel_size"] = file[f"{DETECTOR}/y_pixel_size"] = PIXEL_M
        file[f"{SOURCE}/energy"] = ENERGY_J
        if mask is not None:
            file[f"{DETECTOR}/mask"] = mask
        if with_probe:
            file[f"{SOURCE}/illumination"] = probe().astype(np.complex64)
    return path


def correlation(perspective: Perspective, *, epochs=4) -> float:
    """Return the correlation of the phase that is retrieved from the usable frames with that of the object."""
    counts = perspective.read(0, len(perspective))
    good = usable(counts)
    job = GroundTruthJob(
        perspective=0,
        frames=counts[good],
        positions_px=perspective.positions_px[good],
        probe=perspective.probe,
        mask=perspective.mask,
        recorded=None,
        target_shape_px=(N // 2, N // 2),
    )
    found = compute_ground_truth(job, RetrievalSettings(epochs=epochs, batch_size=10))
    rows, columns = (
        np.arange(length) + origin for length, origin in zip(found.reference_phase.shape, found.origin_px, strict=True)
    )
    truth = ndimage.map_coordinates(np.angle(specimen()), np.meshgrid(rows, columns, indexing="ij"), order=1)
    inner = np.s_[N // 4 : -N // 4, N // 4 : -N // 4]
    return float(np.corrcoef(truth[inner].ravel(), found.reference_phase[inner].ravel())[0, 1])
