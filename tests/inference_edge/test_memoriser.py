"""What remembering alone makes of held-out frames, where it is known which frame looks most alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ptychoflow.inference_edge.ptychography import memoriser
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.memoriser import remember_held_out
from ptychoflow.inference_edge.ptychography.most_alike import MostAlike
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.stitching.mosaic import place_patches
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.streaming.messages import FrameRole

TARGET = (6, 8)
RANDOM = np.random.default_rng(5)
FRAMES = RANDOM.poisson(9, (9, 16, 16)).astype(np.uint16)
POSITIONS = np.array([[y, x] for y in (10.0, 20.25, 30.0) for x in (10.0, 21.5, 33.0)])
REFERENCE = ReferenceImage(
    *(ndimage.gaussian_filter(RANDOM.standard_normal((44, 48)), 3) for _ in range(2)), origin_px=(0.0, 0.0)
)


def perspective(
    frames: np.ndarray, positions_px: np.ndarray, roles: list[FrameRole], reference: ReferenceImage | None = REFERENCE
) -> Perspective:
    made = Perspective(0, 0.0)
    block = DiffractionBlock(
        index=np.arange(len(frames), dtype=np.int32),
        role=np.array(roles, np.uint8),
        position_px=positions_px,
        diffraction=frames,
    )
    for part in (block.head(5), block.tail(5)):
        flat = np.ones((len(part), *TARGET), np.float32)
        made.stitch(part, place_patches(flat, flat, part.position_px), 1)
    if reference is not None:
        made.set_reference(reference)
    return made


def around(position: np.ndarray, channel: np.ndarray) -> np.ndarray:
    y, x = np.round(position).astype(int) - (3, 4)
    return channel[y : y + 6, x : x + 8]


@pytest.mark.parametrize("crop_px", [None, 4])
def test_a_held_out_frame_gets_the_reference_under_the_frame_most_alike(crop_px: int | None) -> None:
    """Frame 4 is frame 1 but for a photon and frame 8 the very frame 6, which nothing may learn from; then comes 7."""
    frames = FRAMES.copy()
    frames[4], frames[8] = frames[1], frames[6]
    frames[4, 3, 3] += 1
    frames[7] = frames[6]
    frames[7, 0] += 2
    roles = [FrameRole.TRAIN] * 9
    roles[4], roles[8], roles[6], roles[1] = (
        FrameRole.HELD_OUT,
        FrameRole.HELD_OUT,
        FrameRole.EXCLUDED,
        FrameRole.VALIDATION,
    )
    whole = perspective(frames, POSITIONS, roles)
    mosaic = remember_held_out(whole, [whole], target_shape_px=TARGET, patch_crop_px=crop_px)
    assert mosaic is not None
    assert mosaic.frames == 2
    image = mosaic.image()
    here, like = POSITIONS[4], POSITIONS[1]
    # cut out on the pixels nearest to it, a patch lies a fraction of a pixel off; so it does where it is put
    centre = here + np.round(like) - like
    assert centre == pytest.approx([20.25, 22.0])
    first = np.floor(centre).astype(int) - image.origin_px
    found = image.phase[first[0], first[1]]
    patch = around(like, REFERENCE.phase)
    expected = 0.25 * patch[2, 4] + 0.75 * patch[3, 4]
    assert found == pytest.approx(expected, abs=0.02)


def test_frames_of_other_perspectives_are_remembered_too() -> None:
    here = perspective(FRAMES, POSITIONS, [FrameRole.HELD_OUT] * 9)
    there = perspective(FRAMES[::-1], POSITIONS, [FrameRole.TRAIN] * 9)
    mosaic = remember_held_out(here, [here, there], target_shape_px=TARGET, patch_crop_px=None)
    assert mosaic is not None
    image = mosaic.image()
    corner = np.round(POSITIONS[0]).astype(int) - image.origin_px - (3, 4)
    got = image.phase[corner[0] : corner[0] + 6, corner[1] : corner[1] + 8]
    np.testing.assert_allclose(got, around(POSITIONS[8], REFERENCE.phase), atol=1e-6)


def test_there_is_no_memoriser_where_nothing_is_known_or_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = [FrameRole.HELD_OUT] + [FrameRole.TRAIN] * 8
    whole = perspective(FRAMES, POSITIONS, roles)
    nothing_held_out = perspective(FRAMES, POSITIONS, [FrameRole.TRAIN] * 9)
    without_reference = perspective(FRAMES, POSITIONS, roles, None)
    outside = perspective(FRAMES, POSITIONS + 100.0, roles)
    for one, kept in (
        (nothing_held_out, nothing_held_out),
        (without_reference, without_reference),
        (outside, outside),
    ):
        assert remember_held_out(one, [kept], target_shape_px=TARGET, patch_crop_px=None) is None
    assert remember_held_out(whole, [whole], target_shape_px=TARGET, patch_crop_px=None) is not None
    monkeypatch.setattr(memoriser, "COMPARISONS_MAX", 8 * 256 - 1)
    assert remember_held_out(whole, [whole], target_shape_px=TARGET, patch_crop_px=None) is None


def test_the_nearest_is_found_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptychoflow.inference_edge.ptychography.most_alike.CHUNK_BYTES", 8 * 256 * 2)
    looked_for = RANDOM.poisson(9, (5, 16, 16))
    alike = MostAlike(looked_for)
    alike.store(FRAMES, np.stack([np.full(9, 3), np.arange(9)], axis=1))
    distances = ((np.sqrt(looked_for)[:, None] - np.sqrt(FRAMES)[None]) ** 2).sum(axis=(2, 3))
    assert alike.place.tolist() == [[3, row] for row in distances.argmin(axis=1)]
