"""Patches are cut at the right sub-pixel place."""

import time

import numpy as np
import pytest

from ptychoflow.acquisition.retrieval.patches import cut_patches
from ptychoflow.acquisition.scan import ObjectImage


def wave(y, x):
    """A band-limited complex image, asymmetric, known everywhere."""
    phase = 0.8 * np.sin(0.21 * y + 0.05 * x + 0.3) + 0.5 * np.cos(0.17 * x - 0.02 * y)
    return (1 + 0.1 * np.cos(0.13 * y + 0.3 * x)) * np.exp(1j * phase)


def image_of(shape, origin):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ObjectImage(wave(y + origin[0], x + origin[1]).astype(np.complex64), origin)


@pytest.mark.parametrize("shape_px", [(16, 12), (15, 11), (16, 11)])
def test_whole_pixel_patches_are_the_pixels_of_the_image(shape_px):
    image = image_of((60, 70), (-20.0, 5.0))
    positions = np.array([[3.0, 30.0], [10.0, 40.0]])
    patches = cut_patches(image, positions, shape_px)
    height, width = shape_px
    for patch, (y, x) in zip(patches, positions.astype(int), strict=True):
        top, left = y + 20 - height // 2, x - 5 - width // 2
        np.testing.assert_allclose(patch, image.values[top : top + height, left : left + width], atol=2e-6)
        assert patch[height // 2, width // 2] == pytest.approx(image.values[y + 20, x - 5], abs=2e-6)


def test_sub_pixel_patches_follow_the_continuous_image():
    image = image_of((80, 90), (-7.25, 11.5))
    positions = np.random.default_rng(0).uniform([20, 40], [45, 70], (40, 2))
    patches = cut_patches(image, positions, (24, 20))
    y = positions[:, 0, None, None] + np.arange(24)[:, None] - 12
    x = positions[:, 1, None, None] + np.arange(20) - 10
    np.testing.assert_allclose(patches, wave(y, x), atol=1e-3)


def test_patches_reach_the_very_border_and_not_beyond():
    image = image_of((40, 40), (0.0, 0.0))
    corner = cut_patches(image, np.array([[8.0, 8.0], [32.0, 32.0]]), (16, 16))
    np.testing.assert_allclose(corner[0], image.values[:16, :16], atol=2e-6)
    np.testing.assert_allclose(corner[1], image.values[24:, 24:], atol=2e-6)
    with pytest.raises(ValueError, match=r"frame 1 leaves the object image by 0\.5 px"):
        cut_patches(image, np.array([[8.0, 8.0], [32.5, 20.0]]), (16, 16))


def test_a_perspective_of_the_thesis_is_cut_in_two_seconds():
    image = image_of((400, 400), (0.0, 0.0))
    positions = np.random.default_rng(0).uniform(40, 360, (950, 2))
    started = time.process_time()
    cut_patches(image, positions, (64, 64))
    assert time.process_time() - started < 2.0
