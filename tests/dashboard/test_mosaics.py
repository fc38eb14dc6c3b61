import numpy as np
import pytest
from telemetry_samples import mosaic, ramp

from dashboard.mosaics import Channel, MosaicStore, PictureKind, colour_limits
from streaming.events import MosaicKind

FIRST_PASS, REFRESHED, REFERENCE = MosaicKind.FIRST_PASS, MosaicKind.REFRESHED, MosaicKind.REFERENCE


def store(kept: int = 3, max_bytes: int = 1 << 20) -> MosaicStore:
    return MosaicStore(kept_perspectives=kept, max_bytes=max_bytes)


def put(images: MosaicStore, perspective: int, kind: MosaicKind, phase: np.ndarray, origin_px=(0.0, 0.0)) -> None:
    images.put(*mosaic(perspective, kind, np.cos(phase), phase, origin_px))


def test_the_newest_image_of_a_kind_replaces_the_one_before():
    images = store()
    put(images, 0, REFRESHED, ramp())
    put(images, 0, REFRESHED, ramp() + 1)
    np.testing.assert_array_equal(images.get(0, REFRESHED).channels[Channel.PHASE], ramp() + 1)
    assert [kept.revision for kept in images.all()] == [2]


def test_old_perspectives_are_let_go_by_number_and_by_memory():
    images = store(kept=2)
    for perspective in range(5):
        put(images, perspective, FIRST_PASS, ramp())
    assert [kept.info.perspective for kept in images.all()] == [3, 4]
    tight = store(kept=9, max_bytes=2 * ramp().nbytes)
    for perspective in range(3):
        put(tight, perspective, FIRST_PASS, ramp())
    assert [kept.info.perspective for kept in tight.all()] == [2]


def test_the_reference_is_shown_on_the_grid_of_the_prediction():
    images = store()
    put(images, 0, REFERENCE, ramp(6, 8) / 100, origin_px=(-2.0, -3.0))
    put(images, 0, REFRESHED, np.zeros((3, 4)), origin_px=(0.0, 1.0))
    shown = images.picture(0, PictureKind.REFERENCE, Channel.PHASE).values
    np.testing.assert_allclose(shown, ramp(6, 8)[2:5, 4:8] / 100, atol=1e-6)


def test_half_a_pixel_is_interpolated_and_the_outside_is_nan():
    images = store()
    put(images, 0, REFERENCE, ramp(4, 4) / 100)
    put(images, 0, FIRST_PASS, np.zeros((2, 4)), origin_px=(0.5, 1.0))
    shown = images.picture(0, PictureKind.REFERENCE, Channel.PHASE).values
    np.testing.assert_allclose(shown[:, :3], (ramp(4, 4)[:2, 1:] + 2) / 100, atol=1e-4)
    assert np.isnan(shown[:, 3]).all()


def test_difference_ignores_a_constant_phase_and_wraps():
    images = store()
    truth = np.linspace(-3, 3, 48).reshape(6, 8)
    put(images, 0, REFERENCE, truth)
    shifted = np.angle(np.exp(1j * (truth + 2.5)))
    shifted[0, 0] = np.nan
    put(images, 0, FIRST_PASS, shifted)
    shown = images.picture(0, PictureKind.DIFFERENCE_FIRST_PASS, Channel.PHASE).values
    assert np.isnan(shown[0, 0])
    np.testing.assert_allclose(shown.ravel()[1:], 0, atol=1e-5)


def test_amplitude_difference_is_prediction_minus_reference():
    images = store()
    images.put(*mosaic(0, REFERENCE, ramp(), ramp()))
    images.put(*mosaic(0, REFRESHED, ramp() + 0.5, ramp()))
    shown = images.picture(0, PictureKind.DIFFERENCE_REFRESHED, Channel.AMPLITUDE)
    np.testing.assert_array_equal(shown.values, np.full((6, 8), 0.5))
    assert shown.limits[0] == -shown.limits[1]


def test_prediction_and_reference_share_the_limits_of_the_reference():
    images = store()
    images.put(*mosaic(0, FIRST_PASS, ramp() * 100, ramp()))
    alone = images.picture(0, PictureKind.FIRST_PASS, Channel.AMPLITUDE)
    images.put(*mosaic(0, REFERENCE, ramp(), ramp()))
    both = [images.picture(0, kind, Channel.AMPLITUDE) for kind in (PictureKind.FIRST_PASS, PictureKind.REFERENCE)]
    assert both[0].limits == both[1].limits == colour_limits(ramp())
    assert alone.limits == colour_limits(ramp() * 100)
    assert both[0].revision > alone.revision, "a new reference changes the colours, so browsers must fetch again"


@pytest.mark.parametrize("kind", list(PictureKind))
def test_nothing_to_show_is_none(kind):
    assert store().picture(0, kind, Channel.PHASE) is None


def test_a_difference_needs_both_images():
    images = store()
    put(images, 0, FIRST_PASS, ramp())
    assert images.picture(0, PictureKind.DIFFERENCE_FIRST_PASS, Channel.PHASE) is None


def test_limits_of_flat_and_of_empty_images():
    assert colour_limits(np.full((3, 3), 2.0, np.float32)) == (1.5, 2.5)
    assert colour_limits(np.full((3, 3), np.nan, np.float32)) == (0.0, 1.0)
