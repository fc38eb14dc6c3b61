"""What a viewer has after every event is the stitched image."""

from __future__ import annotations

import numpy as np

from ptychoflow.dashboard.mosaics import Channel, MosaicStore
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.mosaic_feed import MosaicFeed
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.stitching.mosaic import place_patches
from ptychoflow.streaming.events import MosaicArea, MosaicImage, MosaicKind

PIXEL_SIZE_M = (1e-8, 1e-8)
FIRST_PASS, REFRESHED = MosaicKind.FIRST_PASS, MosaicKind.REFRESHED


class Viewer:
    """Takes what is sent into a store, as the dashboard does."""

    def __init__(self) -> None:
        self.store = MosaicStore(kept_perspectives=9, max_bytes=1 << 30)
        self.kinds: list[type] = []

    def send(self, event, arrays) -> None:
        self.kinds.append(type(event))
        self.store.take(event, {name: array.copy() for name, array in arrays.items()})

    def assert_shows(self, perspective: Perspective, kind: MosaicKind) -> None:
        shown, expected = self.store.of(perspective.index)[kind], perspective.rendering(kind).whole.image()
        assert shown.info.origin_px == expected.origin_px
        np.testing.assert_array_equal(shown.channels[Channel.AMPLITUDE], expected.amplitude)
        np.testing.assert_array_equal(shown.channels[Channel.PHASE], expected.phase)


def scanned(start: int, count: int):
    random = np.random.default_rng(start)
    index = np.arange(start, start + count, dtype=np.int32)
    positions = np.stack([3.7 * (index // 8), 5.1 * (index % 8) - 2 * (index // 8)], axis=1)
    counts = np.zeros((count, 4, 4), np.uint16)
    block = DiffractionBlock(index, np.zeros(count, np.uint8), positions, counts)
    amplitude, phase = random.uniform(0, 3, (2, count, 10, 10)).astype(np.float32)
    return block, place_patches(amplitude, phase, positions)


def test_parts_that_changed_add_up_to_the_image():
    viewer, perspective = Viewer(), Perspective(3, 0.0)
    feed = MosaicFeed(viewer, whole_period_s=1e9)
    for start in range(0, 64, 4):
        perspective.stitch(*scanned(start, 4), version=1)
        feed.send(perspective, FIRST_PASS, pixel_size_m=PIXEL_SIZE_M, whole=False)
        viewer.assert_shows(perspective, FIRST_PASS)
    assert viewer.kinds[0] is MosaicImage
    assert viewer.kinds.count(MosaicArea) > 10
    feed.send(perspective, FIRST_PASS, pixel_size_m=PIXEL_SIZE_M, whole=True)
    assert viewer.kinds[-1] is MosaicImage


def test_an_image_that_is_replaced_is_sent_as_a_whole():
    viewer, perspective = Viewer(), Perspective(0, 0.0)
    feed = MosaicFeed(viewer, whole_period_s=1e9)
    perspective.stitch(*scanned(0, 40), version=1)
    feed.send(perspective, REFRESHED, pixel_size_m=PIXEL_SIZE_M, whole=False)
    block = perspective.next_to_refresh(64)
    perspective.stitch_refreshed(block, scanned(1000, 40)[1], version=2)
    feed.send(perspective, REFRESHED, pixel_size_m=PIXEL_SIZE_M, whole=False)
    viewer.assert_shows(perspective, REFRESHED)
    perspective.stitch(*scanned(40, 2), version=2)
    feed.send(perspective, REFRESHED, pixel_size_m=PIXEL_SIZE_M, whole=False)
    viewer.assert_shows(perspective, REFRESHED)
    assert viewer.kinds == [MosaicImage, MosaicImage, MosaicArea]


def test_the_whole_comes_again_for_those_who_joined_late():
    viewer, perspective = Viewer(), Perspective(0, 0.0)
    feed = MosaicFeed(viewer, whole_period_s=1e-9)
    for start in range(0, 24, 4):
        perspective.stitch(*scanned(start, 4), version=1)
        feed.send(perspective, FIRST_PASS, pixel_size_m=PIXEL_SIZE_M, whole=False)
    assert set(viewer.kinds) == {MosaicImage}
