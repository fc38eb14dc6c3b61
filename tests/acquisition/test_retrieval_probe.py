"""The starting probe gets the frames' energy and more modes where asked for; masked pixels do not count."""

from dataclasses import replace

import numpy as np
import pytest

from ptychoflow.acquisition.propagation import far_field_intensity
from ptychoflow.acquisition.retrieval.engine import Measurement, canvas_for
from ptychoflow.acquisition.retrieval.probe import add_modes, scale_to_frames
from ptychoflow.acquisition.retrieval.ptychi_engine import PtychiEngine
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings


def round_probe(size_px=32):
    y, x = np.mgrid[:size_px, :size_px] - size_px // 2
    return np.exp(-(y**2 + x**2) / 40 + 0.03j * y**2)[np.newaxis].astype(np.complex64)


def void_measurement(photons=1e5):
    rng = np.random.default_rng(0)
    probe = round_probe() * np.sqrt(photons / np.sum(np.abs(round_probe()) ** 2))
    positions = np.stack(np.meshgrid(np.arange(0, 30, 6.0), np.arange(0, 30, 6.0)), -1).reshape(-1, 2)
    frames = rng.poisson(far_field_intensity(probe, np.ones((len(positions), 32, 32)))).astype(np.uint16)
    return Measurement(frames, positions + rng.uniform(-1, 1, positions.shape), round_probe(), None)


def test_the_probe_gets_the_energy_of_the_mean_frame_where_pixels_count():
    measurement = void_measurement()
    frames = measurement.frames.copy()
    mask = np.zeros((32, 32), bool)
    mask[3, 5] = True
    frames[:, 3, 5] = 60_000
    scaled = scale_to_frames(7 * round_probe(), frames, mask)
    assert np.sum(np.abs(scaled) ** 2) == pytest.approx(1e5, rel=1e-3)


def test_added_modes_are_orthogonal_and_weaker_one_after_the_other():
    modes = add_modes(round_probe(), 4).reshape(4, -1)
    np.testing.assert_array_equal(modes[0], round_probe().ravel())
    overlaps = modes.conj() @ modes.T
    power = np.real(np.diag(overlaps))
    np.testing.assert_allclose(overlaps - np.diag(np.diag(overlaps)), 0, atol=1e-4 * power[0])
    np.testing.assert_allclose(power[1:] / power[0], [0.05, 0.025, 0.0125], rtol=1e-3)


def test_modes_that_the_scan_brings_are_kept():
    given = np.concatenate([round_probe(), 0.3j * round_probe(), round_probe()])
    assert add_modes(given, 2) is given


def test_a_hot_pixel_that_is_masked_does_no_harm():
    measurement = void_measurement()
    hot = measurement.frames.copy()
    hot[:, 20, 9] = 50_000
    mask = np.zeros((32, 32), bool)
    mask[20, 9] = True
    engine = PtychiEngine(RetrievalSettings(epochs=8, batch_size=10, device="cpu"))
    found = engine.reconstruct(replace(measurement, frames=hot, mask=mask))
    inner = found.object_image.values[20:44, 20:44]
    assert np.std(np.abs(inner)) < 0.03
    assert np.std(np.angle(inner / inner.mean())) < 0.03
    assert np.sum(np.abs(found.probe) ** 2) == pytest.approx(1e5, rel=0.1)
    deceived = engine.reconstruct(replace(measurement, frames=hot))
    assert np.sum(np.abs(deceived.probe) ** 2) > 1.3e5


def test_two_modes_come_back_as_two():
    settings = RetrievalSettings(epochs=3, batch_size=10, probe_modes=2, device="cpu")
    found = PtychiEngine(settings).reconstruct(void_measurement())
    assert found.probe.shape == (2, 32, 32)
    assert np.sum(np.abs(found.probe) ** 2) == pytest.approx(1e5, rel=0.1)


def test_the_canvas_holds_every_patch_with_a_margin():
    positions = np.array([[-10.25, 3.0], [20.5, 40.75]])
    canvas = canvas_for(positions, (32, 33))
    corners = positions - canvas.origin_px - [16, 16]
    assert corners.min() >= 2
    assert np.all(corners + [32, 33] + 2 <= canvas.shape_px)
