import numpy as np
import pytest
from telemetry_samples import mosaic, ramp

from ptychoflow.dashboard.mosaics import Channel, Mosaic
from ptychoflow.dashboard.pictures import PictureKind, colour_limits, make_picture
from ptychoflow.streaming.events import MosaicImage, MosaicKind

FIRST_PASS, REFRESHED, REFERENCE = MosaicKind.FIRST_PASS, MosaicKind.REFRESHED, MosaicKind.REFERENCE
Images = dict[MosaicKind, Mosaic]


def show(images: Images, info: MosaicImage, arrays: dict[str, np.ndarray]) -> None:
    images[info.kind] = Mosaic(info, {channel: arrays[channel] for channel in Channel}, len(images) + 1)


def put(images: Images, kind: MosaicKind, phase: np.ndarray, origin_px=(0.0, 0.0)) -> None:
    show(images, *mosaic(0, kind, np.cos(phase), phase, origin_px))


def test_the_reference_is_shown_on_the_grid_of_the_prediction():
    images = {}
    put(images, REFERENCE, ramp(6, 8) / 100, origin_px=(-2.0, -3.0))
    put(images, REFRESHED, np.zeros((3, 4)), origin_px=(0.0, 1.0))
    shown = make_picture(images, PictureKind.REFERENCE, Channel.PHASE).values
    np.testing.assert_allclose(shown, ramp(6, 8)[2:5, 4:8] / 100, atol=1e-6)


def test_a_preview_is_shown_like_the_reference_and_beside_it():
    images = {}
    put(images, MosaicKind.PREVIEW, ramp(6, 8) / 100, origin_px=(-2.0, -3.0))
    assert make_picture(images, PictureKind.REFERENCE, Channel.PHASE) is None
    put(images, REFRESHED, np.zeros((3, 4)), origin_px=(0.0, 1.0))
    shown = make_picture(images, PictureKind.PREVIEW, Channel.PHASE).values
    np.testing.assert_allclose(shown, ramp(6, 8)[2:5, 4:8] / 100, atol=1e-6)


@pytest.mark.parametrize("channel", Channel)
def test_equal_values_of_network_and_preview_have_equal_colours(channel):
    images = {}
    put(images, FIRST_PASS, ramp(6, 8) / 10)
    alone = make_picture(images, PictureKind.FIRST_PASS, channel).limits
    put(images, MosaicKind.PREVIEW, ramp(6, 8) / 100, origin_px=(100.0, 100.0))
    assert make_picture(images, PictureKind.FIRST_PASS, channel).limits == alone, "nothing in common"
    put(images, MosaicKind.PREVIEW, ramp(6, 8) / 100, origin_px=(2.0, 0.0))
    network, preview = (make_picture(images, kind, channel) for kind in (PictureKind.FIRST_PASS, PictureKind.PREVIEW))
    assert network.limits == preview.limits != alone
    assert set(preview.revisions) == set(network.revisions), "both change with either"
    put(images, REFERENCE, ramp(6, 8) / 20)
    network, reference = (
        make_picture(images, kind, channel) for kind in (PictureKind.FIRST_PASS, PictureKind.REFERENCE)
    )
    assert network.limits == reference.limits != preview.limits


def test_half_a_pixel_is_interpolated_and_the_outside_is_nan():
    images = {}
    put(images, REFERENCE, ramp(4, 4) / 100)
    put(images, FIRST_PASS, np.zeros((2, 4)), origin_px=(0.5, 1.0))
    shown = make_picture(images, PictureKind.REFERENCE, Channel.PHASE).values
    np.testing.assert_allclose(shown[:, :3], (ramp(4, 4)[:2, 1:] + 2) / 100, atol=1e-4)
    assert np.isnan(shown[:, 3]).all()


def test_difference_ignores_a_constant_phase_and_wraps():
    images = {}
    truth = np.linspace(-3, 3, 48).reshape(6, 8)
    put(images, REFERENCE, truth)
    shifted = np.angle(np.exp(1j * (truth + 2.5)))
    shifted[0, 0] = np.nan
    put(images, FIRST_PASS, shifted)
    shown = make_picture(images, PictureKind.DIFFERENCE_FIRST_PASS, Channel.PHASE).values
    assert np.isnan(shown[0, 0])
    np.testing.assert_allclose(shown.ravel()[1:], 0, atol=1e-5)


def test_amplitude_difference_is_prediction_minus_reference():
    images = {}
    show(images, *mosaic(0, REFERENCE, ramp(), ramp()))
    show(images, *mosaic(0, REFRESHED, ramp() + 0.5, ramp()))
    shown = make_picture(images, PictureKind.DIFFERENCE_REFRESHED, Channel.AMPLITUDE)
    np.testing.assert_array_equal(shown.values, np.full((6, 8), 0.5))
    assert shown.limits[0] == -shown.limits[1]


def test_prediction_and_reference_share_the_limits_of_the_reference():
    images = {}
    show(images, *mosaic(0, FIRST_PASS, ramp() * 100, ramp()))
    alone = make_picture(images, PictureKind.FIRST_PASS, Channel.AMPLITUDE)
    show(images, *mosaic(0, REFERENCE, ramp(), ramp()))
    both = [make_picture(images, kind, Channel.AMPLITUDE) for kind in (PictureKind.FIRST_PASS, PictureKind.REFERENCE)]
    assert both[0].limits == both[1].limits == colour_limits(ramp())
    assert alone.limits == colour_limits(ramp() * 100)
    assert both[0].revisions != alone.revisions, "a new reference changes the colours, so browsers must fetch again"


@pytest.mark.parametrize("kind", list(PictureKind))
def test_nothing_to_show_is_none(kind):
    assert make_picture({}, kind, Channel.PHASE) is None


def test_a_difference_needs_both_images():
    images = {}
    put(images, FIRST_PASS, ramp())
    assert make_picture(images, PictureKind.DIFFERENCE_FIRST_PASS, Channel.PHASE) is None


def test_limits_of_flat_and_of_empty_images():
    assert colour_limits(np.full((3, 3), 2.0, np.float32)) == (1.5, 2.5)
    assert colour_limits(np.full((3, 3), np.nan, np.float32)) == (0.0, 1.0)
