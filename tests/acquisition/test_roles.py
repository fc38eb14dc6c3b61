"""Roles of frames: stable, of the right share, and without overlap between training and what is held out."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from ptychoflow.acquisition.roles import Roles, assign_roles, hash_frame_ids
from ptychoflow.acquisition.source_settings import HoldOut, RegionEnd, RoleSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole

POSITIONS = np.stack(np.meshgrid(np.arange(40) * 5.0, np.arange(30) * 5.0, indexing="ij"), axis=-1).reshape(-1, 2)


def roles_of(settings: RoleSettings, positions=POSITIONS, *, perspective=0, perspectives=4, target=(32, 32), seed=0):
    return assign_roles(
        settings,
        positions,
        perspective=perspective,
        perspectives=perspectives,
        target_shape_px=target,
        seed=seed,
    )


def test_validation_takes_its_share_of_every_perspective_at_random():
    frames, perspectives = 1000, 200
    counts = np.array(
        [
            np.sum(roles_of(RoleSettings(), np.zeros((frames, 2)), perspective=index) == FrameRole.VALIDATION)
            for index in range(perspectives)
        ]
    )
    statistic = np.sum((counts - 100.0) ** 2 / (1000 * 0.1 * 0.9))
    # Fails once in 1,000 hash functions; the seed is fixed.
    assert 5e-4 < stats.chi2.cdf(statistic, perspectives) < 1 - 5e-4


def test_hashes_of_neighbouring_ids_are_uniform_and_distinct():
    hashes = np.concatenate([hash_frame_ids(perspective, np.arange(500), seed=3) for perspective in range(40)])
    assert len(np.unique(hashes)) == len(hashes)
    observed = np.bincount((hashes >> np.uint64(58)).astype(int), minlength=64)
    assert stats.chisquare(observed).pvalue > 1e-3


def test_choice_is_the_same_in_another_process_and_depends_on_the_seed():
    code = (
        "import numpy as np; from ptychoflow.acquisition.roles import hash_frame_ids;"
        "print(*hash_frame_ids(5, np.arange(3), seed=9))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = hash_frame_ids(5, np.arange(3), seed=9)
    assert printed.split() == [str(value) for value in here]
    np.testing.assert_array_equal(hash_frame_ids(5, np.arange(2, 3), seed=9), here[2:])
    assert not np.array_equal(roles_of(RoleSettings(), seed=1), roles_of(RoleSettings(), seed=2))


def test_without_hold_out_every_frame_trains_or_validates():
    assert set(roles_of(RoleSettings())) == {FrameRole.TRAIN, FrameRole.VALIDATION}
    assert set(roles_of(RoleSettings(validation_fraction=0.0))) == {FrameRole.TRAIN}


@pytest.mark.parametrize("end", list(RegionEnd))
def test_no_patch_to_learn_from_overlaps_a_held_out_one(end):
    target = (32, 20)
    jittered = POSITIONS + np.random.default_rng(0).normal(scale=1.5, size=POSITIONS.shape)
    settings = RoleSettings(hold_out=HoldOut.REGION, region_end=end, region_fraction=0.2)
    roles = roles_of(settings, jittered, target=target)
    held_out, learn = jittered[roles == FrameRole.HELD_OUT], jittered[roles <= FrameRole.VALIDATION]
    # Bilinear interpolation at a sub-pixel position touches floor(p) .. floor(p) + 1.
    distance = np.abs(np.floor(held_out)[:, np.newaxis] - np.floor(learn))
    assert not ((distance[..., 0] < target[0]) & (distance[..., 1] < target[1])).any()
    assert 0.15 < np.mean(roles == FrameRole.HELD_OUT) < 0.25
    assert np.any(roles == FrameRole.VALIDATION)
    axis, sign = {"low_y": (0, -1), "high_y": (0, 1), "low_x": (1, -1), "high_x": (1, 1)}[end.value]
    assert (sign * held_out[:, axis]).min() > (sign * learn[:, axis]).max()
    assert (sign * held_out[:, axis]).max() == (sign * jittered[:, axis]).max()


def test_gap_is_no_wider_than_patch_and_setting_ask_for():
    settings = RoleSettings(hold_out=HoldOut.REGION, region_end=RegionEnd.LOW_Y, region_fraction=0.2)
    roles = roles_of(settings)
    lines = {role: set(POSITIONS[roles == role, 0]) for role in FrameRole}
    assert max(lines[FrameRole.HELD_OUT]) == 35.0
    assert lines[FrameRole.EXCLUDED] == {40.0, 45.0, 50.0, 55.0, 60.0, 65.0}
    wider = roles_of(settings.model_copy(update={"gap_px": 10.0}))
    assert max(POSITIONS[wider == FrameRole.EXCLUDED, 0]) == 75.0


def test_only_the_last_perspective_is_held_out():
    settings = RoleSettings(hold_out=HoldOut.LAST_PERSPECTIVE)
    assert set(roles_of(settings, perspective=3)) == {FrameRole.HELD_OUT}
    assert FrameRole.HELD_OUT not in roles_of(settings, perspective=2)


@pytest.mark.parametrize(("perspectives", "words"), [(None, "cannot tell how many"), (1, "only one")])
def test_last_perspective_must_be_known_and_not_alone(perspectives, words):
    with pytest.raises(UserError, match=words):
        roles_of(RoleSettings(hold_out=HoldOut.LAST_PERSPECTIVE), perspectives=perspectives)


def test_a_later_perspective_that_was_broken_off_is_told_and_not_trained_on():
    settings = RoleSettings(hold_out=HoldOut.REGION, region_end=RegionEnd.LOW_Y, region_fraction=0.2)
    roles = Roles(
        settings,
        perspective=2,
        perspectives=4,
        positions_px=POSITIONS[:45],
        target_shape_px=(32, 32),
        seed=0,
    )
    assert roles.note.startswith("Nothing is left to train on")
    dealt = roles.assign(np.arange(45), POSITIONS[:45])
    assert set(dealt.tolist()) == {FrameRole.HELD_OUT, FrameRole.EXCLUDED}


def test_a_region_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(UserError, match="Nothing is left to train on"):
        roles_of(RoleSettings(hold_out=HoldOut.REGION), target=(200, 200))
