"""What a perspective keeps, and how its images follow the weights."""

from __future__ import annotations

import numpy as np
import pytest

from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock, diffraction_block
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.stitching.mosaic import place_patches
from ptychoflow.streaming.codec import MalformedMessage
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.messages import FrameRole


def block(*indices: int, role: FrameRole = FrameRole.TRAIN) -> DiffractionBlock:
    index = np.array(indices, dtype=np.int32)
    return DiffractionBlock(
        index=index,
        role=np.full(len(index), role, dtype=np.uint8),
        position_px=np.stack([index, index], axis=1).astype(float),
        diffraction=np.ones((len(index), 8, 8), dtype=np.uint16),
    )


def patches(frames: DiffractionBlock, value: float):
    amplitude = np.full((len(frames), 4, 4), value, dtype=np.float32)
    return place_patches(amplitude, np.zeros_like(amplitude), frames.position_px)


def add(perspective: Perspective, frames: DiffractionBlock, version: int) -> None:
    perspective.stitch(frames, patches(frames, version), version)


def refresh(perspective: Perspective, version: int, frames_max: int = 1) -> list[int]:
    frames = perspective.next_to_refresh(frames_max)
    perspective.stitch_refreshed(frames, patches(frames, version), version)
    return frames.index.tolist()


def values(perspective: Perspective, kind: MosaicKind) -> set[float]:
    amplitude = perspective.rendering(kind).whole.image().amplitude
    return set(amplitude[np.isfinite(amplitude)].tolist())


def test_a_frame_is_taken_once():
    perspective = Perspective(0, 0.0)
    assert perspective.mark_received(block(1, 2, 2, 3).index).tolist() == [True, True, False, True]
    assert perspective.mark_received(block(3, 4).index).tolist() == [False, True]


def test_the_refreshed_image_is_replaced_as_a_whole():
    perspective = Perspective(0, 0.0)
    add(perspective, block(0, 1), 1)
    add(perspective, block(2), 1)
    assert not perspective.outdated(1)
    assert perspective.outdated(2)
    assert refresh(perspective, 2) == [0, 1]
    assert values(perspective, MosaicKind.REFRESHED) == {1.0}
    assert refresh(perspective, 2) == [2]
    assert values(perspective, MosaicKind.REFRESHED) == {2.0}
    assert values(perspective, MosaicKind.FIRST_PASS) == {1.0}
    assert not perspective.outdated(2)


def test_frames_that_arrive_during_a_pass_are_in_the_refreshed_image_once():
    perspective = Perspective(0, 0.0)
    add(perspective, block(0), 1)
    add(perspective, block(1), 1)
    refresh(perspective, 2)
    add(perspective, block(2), 2)
    assert perspective.rendering(MosaicKind.REFRESHED).whole.frames == 3
    refresh(perspective, 2)
    assert perspective.rendering(MosaicKind.REFRESHED).whole.frames == 3
    assert values(perspective, MosaicKind.REFRESHED) == {2.0}
    assert perspective.rendering(MosaicKind.FIRST_PASS).versions == {1, 2}


def test_a_pass_with_mixed_versions_is_followed_by_another():
    perspective = Perspective(0, 0.0)
    add(perspective, block(0), 1)
    add(perspective, block(1), 1)
    refresh(perspective, 2)
    refresh(perspective, 3)
    assert perspective.rendering(MosaicKind.REFRESHED).versions == {2, 3}
    assert perspective.outdated(3)
    assert refresh(perspective, 3, frames_max=8) == [0, 1]
    assert perspective.rendering(MosaicKind.REFRESHED).versions == {3}


def test_an_abandoned_pass_begins_anew():
    perspective = Perspective(0, 0.0)
    add(perspective, block(0), 1)
    add(perspective, block(1), 1)
    refresh(perspective, 2)
    perspective.abandon_pass()
    assert refresh(perspective, 3) == [0]
    assert refresh(perspective, 3) == [1]
    assert perspective.rendering(MosaicKind.REFRESHED).versions == {3}


def test_held_out_frames_are_stitched_apart_too():
    perspective = Perspective(0, 0.0)
    add(perspective, DiffractionBlock.join([block(0, 1), block(40, role=FrameRole.HELD_OUT)]), 1)
    rendering = perspective.rendering(MosaicKind.REFRESHED)
    assert rendering.whole.frames == 3
    assert rendering.held_out.frames == 1
    assert rendering.held_out.image().origin_px == (38, 38)
    positions_px, held_out = perspective.placements()
    assert positions_px[held_out].tolist() == [[40.0, 40.0]]


def test_released_frames_are_not_imaged_again():
    perspective = Perspective(0, 0.0)
    add(perspective, block(0), 1)
    perspective.ended = True
    perspective.release_frames()
    assert not perspective.outdated(2)
    assert values(perspective, MosaicKind.FIRST_PASS) == {1.0}


def test_a_perspective_that_keeps_no_frames_shows_all_as_they_were_imaged_last():
    perspective = Perspective(0, 0.0)
    for index in (0, 8):
        add(perspective, block(index), 1)
    assert perspective.kept_bytes == 2 * block(0).nbytes
    refresh(perspective, 2, frames_max=8)
    refresh(perspective, 2, frames_max=8)
    refresh(perspective, 3)
    perspective.keep_no_frames()
    add(perspective, block(16), 2)
    assert (perspective.kept, perspective.kept_bytes, perspective.outdated(3)) == (False, 0, False)
    assert perspective.rendering(MosaicKind.REFRESHED).whole.frames == 3
    assert values(perspective, MosaicKind.REFRESHED) == {2.0}
    assert values(perspective, MosaicKind.FIRST_PASS) == {1.0, 2.0}


def test_frames_without_an_image_are_not_kept():
    perspective = Perspective(0, 0.0)
    add(perspective, block(0).head(0), 1)
    assert not perspective.outdated(2)
    add(perspective, block(1), 1)
    assert refresh(perspective, 2) == [1]


@pytest.mark.parametrize(("released", "ended", "late"), [(True, True, 2), (True, False, 0), (False, True, 0)])
def test_frames_are_late_once_nothing_can_be_added(released, ended, late):
    perspective = Perspective(0, 0.0)
    perspective.mark_received(block(0, 1).index)
    add(perspective, block(0, 1), 1)
    perspective.ended = ended
    if released:
        perspective.release_frames()
    assert perspective.late(block(0, 1).index) == 0
    assert perspective.late(block(1, 2, 3).index) == late
    assert perspective.received == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position_px": None}, "without position_px"),
        ({"role": np.zeros(2, np.uint8)}, "role"),
        ({"index": np.zeros(3)}, "index"),
        ({"index": np.zeros((), np.int32)}, "index"),
        ({"diffraction": np.zeros((3, 8, 9), np.uint16)}, "diffraction"),
        ({"diffraction": np.zeros((3, 8, 8), np.complex64)}, "complex64"),
        ({"position_px": np.full((3, 2), np.nan)}, "not finite"),
        ({"position_px": np.full((3, 2), -1e300)}, "farther away"),
    ],
)
def test_malformed_frames_are_refused_with_the_reason(change, reason):
    good = block(0, 1, 2)
    arrays = {name: getattr(good, name) for name in ("index", "role", "position_px", "diffraction")}
    assert len(diffraction_block(arrays, (8, 8))) == 3
    arrays = {name: array for name, array in (arrays | change).items() if array is not None}
    with pytest.raises(MalformedMessage, match=reason):
        diffraction_block(arrays, (8, 8))
