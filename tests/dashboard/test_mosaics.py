import numpy as np
from telemetry_samples import PIXEL_SIZE_M, mosaic, ramp

from ptychoflow.dashboard.mosaics import Channel, MosaicStore
from ptychoflow.streaming.events import MosaicArea, MosaicImage, MosaicKind, ResidualMapped

FIRST_PASS, REFRESHED = MosaicKind.FIRST_PASS, MosaicKind.REFRESHED


def store(kept: int = 3, max_bytes: int = 1 << 20) -> MosaicStore:
    return MosaicStore(kept_perspectives=kept, max_bytes=max_bytes)


def put(images: MosaicStore, perspective: int, kind: MosaicKind, phase: np.ndarray, origin_px=(0.0, 0.0)) -> None:
    images.take(*mosaic(perspective, kind, np.cos(phase), phase, origin_px))


def test_the_newest_image_of_a_kind_replaces_the_one_before():
    images = store()
    put(images, 0, REFRESHED, ramp())
    put(images, 0, REFRESHED, ramp() + 1)
    np.testing.assert_array_equal(images.of(0)[REFRESHED].channels[Channel.PHASE], ramp() + 1)
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


def test_a_preview_goes_when_the_reference_comes():
    images = store()
    put(images, 0, MosaicKind.PREVIEW, ramp())
    put(images, 1, MosaicKind.PREVIEW, ramp())
    put(images, 0, MosaicKind.REFERENCE, ramp())
    assert list(images.of(0)) == [MosaicKind.REFERENCE]
    assert list(images.of(1)) == [MosaicKind.PREVIEW]


def test_a_perspective_that_is_not_kept_has_no_images():
    assert store().of(7) == {}


def test_an_image_grows_from_the_parts_that_changed():
    images = store()
    whole = MosaicImage(0, FIRST_PASS, 1, (5, -3), PIXEL_SIZE_M, revision=4)
    images.take(whole, {"amplitude": np.ones((2, 2), np.float32), "phase": np.zeros((2, 2), np.float32)})

    def area(revision: int, version: int = 2) -> MosaicArea:
        return MosaicArea(0, FIRST_PASS, version, (6, -2), (4, -3), (4, 3), revision)

    part = {"amplitude": np.full((2, 2), 7, np.float32), "phase": np.full((2, 2), -1, np.float32)}
    images.take(area(6), part)
    assert images.of(0)[FIRST_PASS].info.revision == 4
    images.take(area(5), part)
    grown = images.of(0)[FIRST_PASS]
    nan = np.nan
    np.testing.assert_array_equal(
        grown.channels[Channel.AMPLITUDE], [[nan, nan, nan], [1, 1, nan], [1, 7, 7], [nan, 7, 7]]
    )
    assert (grown.info.origin_px, grown.info.model_version, grown.info.pixel_size_m) == ((4, -3), 2, PIXEL_SIZE_M)
    images.take(area(6), part)
    assert images.of(0)[FIRST_PASS].info.revision == 6
    images.take(MosaicArea(1, FIRST_PASS, 1, (0, 0), (0, 0), (2, 2), 1), part)
    assert images.of(1) == {}


def test_residuals_lie_over_the_pixels_of_their_cells_and_stay_while_the_image_is_replaced():
    images = store()
    cells = {"residual": np.array([[1, 2], [3, np.nan]], np.float32)}
    event = ResidualMapped(0, REFRESHED, (0, 2), 2)
    images.take_residual(event, cells)
    assert images.of(0) == {}
    phase = np.zeros((3, 5), np.float32)
    phase[0, 1] = np.nan
    put(images, 0, REFRESHED, phase, origin_px=(-1, 1))
    assert images.of(0)[REFRESHED].residual is None
    images.take_residual(event, cells)
    put(images, 0, REFRESHED, phase, origin_px=(-1, 1))
    mosaic = images.of(0)[REFRESHED]
    nan = np.nan
    np.testing.assert_array_equal(mosaic.residual.on_grid_of(mosaic), [[nan] * 5, [nan, 1, 1, 2, 2], [nan, 1, 1, 2, 2]])
    for cell_px, array in ((0, cells["residual"]), (2, np.zeros((0, 2))), (2, np.zeros(3)), (1 << 20, np.ones((1, 1)))):
        images.take_residual(ResidualMapped(0, REFRESHED, (0, 2), cell_px), {"residual": array})
    images.take_residual(event, {})
    assert images.of(0)[REFRESHED].residual is mosaic.residual
