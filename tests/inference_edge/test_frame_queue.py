"""Batches from what waits, and what is done when too much waits."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest

from ptychoflow.inference_edge.frame_queue import ReceivedBatch
from ptychoflow.inference_edge.ptychography.batch_sizer import BatchSizer
from ptychoflow.inference_edge.ptychography.deferring_queue import DeferringQueue
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.overload import OverloadWatch
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.settings import EdgeSettings, Overload
from ptychoflow.streaming.errors import UserError


def block(start: int, count: int) -> DiffractionBlock:
    index = np.arange(start, start + count, dtype=np.int32)
    return DiffractionBlock(
        index=index,
        role=np.zeros(count, dtype=np.uint8),
        position_px=np.stack([index, -index], axis=1).astype(float),
        diffraction=index[:, None, None] * np.ones((1, 3, 4), dtype=np.uint16),
    )


def arrive(waiting: DeferringQueue, sequence: int, frames: DiffractionBlock, perspective: Perspective) -> ReceivedBatch:
    batch = ReceivedBatch(sequence, perspective, 1.0, left=len(frames))
    waiting.append(batch, frames)
    return batch


def taken(waiting: DeferringQueue, frames_max: int) -> list[tuple[int, list[int], bool]]:
    portions = waiting.next_batch(frames_max)
    for portion in portions:
        np.testing.assert_array_equal(portion.block.diffraction[:, 2, 3], portion.block.index)
        np.testing.assert_array_equal(portion.block.position_px[:, 1], -portion.block.index)
    return [(one.batch.sequence, one.block.index.tolist(), one.put_off) for one in portions]


@pytest.fixture
def waiting(tmp_path):
    one = DeferringQueue(tmp_path)
    yield one
    one.close()


def test_batches_are_filled_divided_and_of_one_perspective(waiting):
    first, second = Perspective(0, 0.0), Perspective(1, 1.0)
    arrive(waiting, 10, block(0, 3), first)
    arrive(waiting, 11, block(3, 4), first)
    arrive(waiting, 12, block(0, 2), second)
    assert waiting.in_turn == 9
    assert taken(waiting, 5) == [(10, [0, 1, 2], False), (11, [3, 4], False)]
    assert taken(waiting, 5) == [(11, [5, 6], False)]
    assert taken(waiting, 5) == [(12, [0, 1], False)]
    assert taken(waiting, 5) == []
    assert waiting.in_turn == 0


def test_frames_put_off_come_back_after_all_others_and_none_is_lost(waiting, tmp_path):
    perspective = Perspective(0, 0.0)
    arrive(waiting, 0, block(0, 5), perspective)
    arrive(waiting, 1, block(5, 2), perspective)
    assert waiting.put_off_all_but(4) == 5
    assert (waiting.in_turn, waiting.put_off) == (2, 5)
    assert waiting.put_off_all_but(4) == 0
    arrive(waiting, 2, block(7, 2), perspective)
    assert taken(waiting, 64) == [(0, [0, 4], False), (2, [7, 8], False)]
    assert taken(waiting, 64) == [(0, [1, 2, 3], True)]
    arrive(waiting, 3, block(9, 1), perspective)
    assert taken(waiting, 64) == [(3, [9], False)]
    assert taken(waiting, 64) == [(1, [5, 6], True)]
    assert (taken(waiting, 64), waiting.in_turn, waiting.put_off) == ([], 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_frames_that_the_disk_does_not_give_back_are_told_of(waiting, tmp_path, monkeypatch):
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_where: file)
        arrive(waiting, 0, block(0, 5), Perspective(0, 0.0))
        waiting.put_off_all_but(6)
        taken(waiting, 64)
        file.truncate(3)
        with pytest.raises(UserError, match=r"cannot read frames back .* holds less than was written"):
            waiting.next_batch(64)


def test_where_nothing_can_be_written_the_user_is_told(tmp_path):
    waiting = DeferringQueue(tmp_path / "missing")
    arrive(waiting, 0, block(0, 5), Perspective(0, 0.0))
    with pytest.raises(UserError, match="cannot put frames off"):
        waiting.put_off_all_but(2)


def test_batches_are_as_large_as_the_latency_allows():
    sizer = BatchSizer(latency_max_s=0.2, batch_max=64)
    assert sizer.frames == 64
    assert not sizer.behind(10_000)
    for _ in range(60):
        sizer.record(10, 0.1)
    assert sizer.frames == 10
    assert not sizer.behind(20)
    assert sizer.behind(21)
    for _ in range(60):
        sizer.record(1, 5.0)
    assert sizer.frames == 1


def test_small_batches_are_gathered_whole_within_the_latency():
    sizer = BatchSizer(latency_max_s=0.2, batch_max=10)
    assert sizer.frames == 10
    sizer.record(10, 0.01)
    assert sizer.frames == 60
    assert [sizer.frames_of(waiting) for waiting in (0, 4, 10, 19, 20, 59, 60, 500)] == [10, 10, 10, 10, 20, 50, 60, 60]
    for _ in range(60):
        sizer.record(10, 0.04)
    assert (sizer.frames, sizer.frames_of(100)) == (20, 20)
    for _ in range(60):
        sizer.record(10, 0.2)
    assert (sizer.frames, sizer.frames_of(100), sizer.frames_of(1)) == (5, 5, 5)


def test_a_network_whose_batches_take_as_long_whatever_their_size_is_given_large_ones():
    sizer = BatchSizer(latency_max_s=0.5, batch_max=64)
    for _ in range(20):
        sizer.record(1, 0.15)
    assert (sizer.frames, sizer.frames_of(1)) == (1, 1)
    for _ in range(10):
        frames = sizer.frames_of(500)
        sizer.record(frames, 0.15)
    assert frames == 64


@pytest.mark.parametrize("frame_s", [0.001, 0.01, 0.03, 0.06, 0.11, 0.2, 0.24])
def test_a_network_that_takes_its_time_for_each_frame_is_never_given_more_than_the_latency_allows(frame_s):
    sizer = BatchSizer(latency_max_s=0.5, batch_max=16)
    sizer.record(1, frame_s)
    for waiting in [1, 500, 500, 2, 500, 40, 500, 500, 3]:
        frames = sizer.frames_of(waiting)
        assert frames * frame_s <= 0.5
        sizer.record(frames, frames * frame_s)
    assert sizer.frames * frame_s <= 0.25


@pytest.mark.parametrize(("batch_max", "frames"), [(1, 64), (3, 63), (40, 40), (64, 64), (100, 100)])
def test_no_more_is_gathered_than_is_worth_it(batch_max, frames):
    sizer = BatchSizer(latency_max_s=1e6, batch_max=batch_max)
    sizer.record(1, 0.001)
    assert sizer.frames == frames


@pytest.mark.parametrize("policy", list(Overload))
def test_the_policy_is_told_once_and_followed(waiting, policy, caplog):
    caplog.set_level("INFO")
    told = []
    watch = OverloadWatch(EdgeSettings(overload=policy, image_every=2), waiting, warn=told.append)
    sizer = BatchSizer(latency_max_s=1.0, batch_max=8)
    arrive(waiting, 0, block(0, 20), Perspective(0, 0.0))
    watch.check(sizer, under_way=0)
    assert told == []
    sizer.record(1, 0.1)
    for _ in range(2):
        watch.check(sizer, under_way=0)
    assert len(told) == (policy is Overload.THIN)
    assert sum("they wait" in record.getMessage() for record in caplog.records) == (policy is Overload.SPOOL)
    assert watch.put_off == (10 if policy is Overload.THIN else 0)
    assert waiting.frames == waiting.in_turn + waiting.put_off == 20
    while waiting.next_batch(8):
        pass
    watch.check(sizer, under_way=0)
    arrive(waiting, 1, block(20, 20), Perspective(0, 0.0))
    watch.check(sizer, under_way=0)
    assert len(told) == 2 * (policy is Overload.THIN)
