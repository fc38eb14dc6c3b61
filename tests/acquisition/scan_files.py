"""Small scan files that tests write: CXI, and ways to change it."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError

FRAMES = "entry_1/data_1/data"
TRANSLATION = "entry_1/data_1/translation"
DETECTOR = "entry_1/instrument_1/detector_1"
SOURCE = "entry_1/instrument_1/source_1"
ENERGY_EV, DISTANCE_M, PIXEL_M = 8000.0, 2.0, (50e-6, 75e-6)


def object_pixel_m(shape=(16, 24)):
    wavelength_m = 1.239841984e-6 / ENERGY_EV
    return np.array([wavelength_m * DISTANCE_M / (pixels * size) for pixels, size in zip(shape, PIXEL_M, strict=True)])


def probe_of(shape=(16, 24), modes=1):
    y, x = np.arange(shape[0])[:, np.newaxis] - shape[0] / 2, np.arange(shape[1]) - shape[1] / 2
    one = np.exp(-(y**2 + x**2) / 8 + 0.1j * y).astype(np.complex64)
    return np.stack([one * (0.5**mode) for mode in range(modes)])


def write_cxi(path: Path, *, frames=30) -> np.ndarray:
    """Write a valid CXI file; return its positions in object pixels."""
    rng = np.random.default_rng(0)
    positions_px = np.stack([np.arange(frames) // 6 * 2.0, np.arange(frames) % 6 * 2.5], axis=1) + rng.random(2)
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file[FRAMES] = rng.poisson(20, (frames, 16, 24)).astype(np.uint16)
        translation = np.zeros((frames, 3))
        translation[:, :2] = (positions_px * object_pixel_m())[:, ::-1]
        file[TRANSLATION] = translation
        file[f"{DETECTOR}/distance"] = DISTANCE_M
        file[f"{DETECTOR}/y_pixel_size"], file[f"{DETECTOR}/x_pixel_size"] = PIXEL_M
        file[f"{SOURCE}/energy"] = ENERGY_EV * ELEMENTARY_CHARGE_C
        file[f"{SOURCE}/illumination"] = probe_of()
    return positions_px


def replace_dataset(path, name, value):
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


class MeasuredScan:
    """Frames of an object at known positions, computed here with numpy alone: far field, whole-pixel steps."""

    def __init__(self, side=5, shape=(16, 24)):
        rng = np.random.default_rng(7)
        image = np.exp(1j * rng.random((shape[0] + 3 * side, shape[1] + 4 * side)))
        self.shape, self.count = shape, side * side
        self.corners = np.array([(3 * row, 4 * column) for row in range(side) for column in range(side)])
        patches = np.array([image[y : y + shape[0], x : x + shape[1]] for y, x in self.corners])
        wave = np.fft.fft2(np.fft.ifftshift(probe_of(shape)[0] * patches, axes=(1, 2)), norm="ortho")
        self.frames = rng.poisson(200 * np.abs(np.fft.fftshift(wave, axes=(1, 2))) ** 2).astype(np.uint16)
        self.positions_px = self.corners.astype(float)
        """(n, 2) as (y, x)."""
        self.positions_m = self.positions_px * object_pixel_m(shape)

    def assert_is(self, perspective, kept=slice(None)):
        """Assert that a perspective has these frames at these positions, but for a common shift."""
        np.testing.assert_array_equal(perspective.read(0, self.count), self.frames[kept])
        assert perspective.geometry.object_pixel_size_m == pytest.approx(object_pixel_m(self.shape), rel=1e-6)
        shift = perspective.positions_px[0] - self.positions_px[kept][0]
        np.testing.assert_allclose(perspective.positions_px - shift, self.positions_px[kept], atol=1e-3)


def opened(path, **settings):
    """Open a scan with settings of [source]."""
    return open_scan(ReplaySettings.model_validate({"path": path, **settings}))


def refusal(path, **settings) -> str:
    """Return the one line with which a scan is refused."""
    with pytest.raises(UserError) as caught:
        opened(path, **settings).perspective(0).read(0, 5)
    assert "\n" not in str(caught.value)
    return str(caught.value)
