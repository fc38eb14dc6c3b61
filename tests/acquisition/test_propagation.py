"""The forward model against its written definition."""

import numpy as np

from ptychoflow.acquisition.propagation import back_propagate, far_field_intensity, propagate, shift_image


def random_complex(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def fourier_sum(wave: np.ndarray) -> np.ndarray:
    """Σ wave(r) exp(−2πi q·r / N) / √(Ny·Nx) with r and q counted from pixel N // 2."""
    kernels = []
    for pixels in wave.shape:
        place = np.arange(pixels) - pixels // 2
        kernels.append(np.exp(-2j * np.pi * np.outer(place, place) / pixels) / np.sqrt(pixels))
    return kernels[0] @ wave @ kernels[1].T


def test_propagation_is_the_centred_fourier_sum_for_even_and_odd_frames():
    rng = np.random.default_rng(0)
    for shape in ((8, 8), (6, 9), (7, 5)):
        wave = random_complex(rng, *shape)
        np.testing.assert_allclose(propagate(wave), fourier_sum(wave), atol=1e-12)
        np.testing.assert_allclose(back_propagate(propagate(wave)), wave, atol=1e-12)


def test_a_phase_ramp_that_falls_along_the_rows_moves_the_beam_up():
    rows = np.arange(16)[:, np.newaxis] - 8
    wave = np.exp(-2j * np.pi * 3 * rows / 16) * np.ones((16, 16))
    intensity = far_field_intensity(np.ones((1, 16, 16)), wave[np.newaxis])[0]
    assert np.unravel_index(intensity.argmax(), intensity.shape) == (8 - 3, 8)


def test_probe_modes_add_without_interference_and_energy_is_kept():
    rng = np.random.default_rng(1)
    probe, patches = random_complex(rng, 3, 8, 10), random_complex(rng, 4, 8, 10)
    frames = far_field_intensity(probe, patches)
    expected = sum(np.abs(propagate(mode * patches)) ** 2 for mode in probe)
    np.testing.assert_allclose(frames, expected)
    energy = np.sum(np.abs(probe[np.newaxis] * patches[:, np.newaxis]) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(frames.sum(axis=(1, 2)), energy)


def test_single_precision_stays_single():
    probe = np.ones((1, 8, 8), np.complex64)
    assert far_field_intensity(probe, np.ones((2, 8, 8), np.complex64)).dtype == np.float32


def test_shift_moves_towards_higher_rows_and_columns():
    image = random_complex(np.random.default_rng(2), 6, 8)
    np.testing.assert_allclose(shift_image(image, (2, -3)), np.roll(image, (2, -3), axis=(0, 1)), atol=1e-12)


def test_half_pixel_shift_of_a_band_limited_image_is_exact():
    def blob(y, x):
        return np.exp(-((y + 1.0) ** 2 / 8 + (x - 2.0) ** 2 / 12)) * np.exp(0.5j * y - 0.2j * x)

    y, x = np.arange(40)[:, np.newaxis] - 20.0, np.arange(44) - 22.0
    np.testing.assert_allclose(shift_image(blob(y, x), (0.5, -0.25)), blob(y - 0.5, x + 0.25), atol=1e-6)
