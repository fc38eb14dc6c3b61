import numpy as np
from telemetry_samples import mosaic, ramp

from dashboard.mosaics import Channel, MosaicStore
from streaming.events import MosaicKind

FIRST_PASS, REFRESHED = MosaicKind.FIRST_PASS, MosaicKind.REFRESHED


def store(kept: int = 3, max_bytes: int = 1 << 20) -> MosaicStore:
    return MosaicStore(kept_perspectives=kept, max_bytes=max_bytes)


def put(images: MosaicStore, perspective: int, kind: MosaicKind, phase: np.ndarray, origin_px=(0.0, 0.0)) -> None:
    images.put(*mosaic(perspective, kind, np.cos(phase), phase, origin_px))


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


def test_a_perspective_that_is_not_kept_has_no_images():
    assert store().of(7) == {}
