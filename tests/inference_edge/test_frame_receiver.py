"""What the edge does with messages, and when it lets the publisher forget them."""

from __future__ import annotations

import numpy as np
import pytest
from edge_run import BATCH, FRAMES_EACH, SCAN_START, batch_of, reference_arrays
from posted_messages import Messages

from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.ptychography.deferring_queue import DeferringQueue
from ptychoflow.inference_edge.ptychography.frame_receiver import FrameReceiver
from ptychoflow.streaming.messages import (
    Frames,
    GroundTruthSource,
    NoReference,
    PerspectiveEnd,
    Probe,
    Reference,
    ScanEnd,
)


@pytest.fixture
def messages():
    return Messages()


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def receiver(messages, tmp_path, warnings):
    return FrameReceiver(
        messages, queue=DeferringQueue(tmp_path), queue_max=1000, counter=EdgeCounter(), warn=warnings.append
    )


def post_perspective(messages: Messages) -> list[int]:
    return [
        *(messages.post(Frames(0, 0.0, 0.0), batch_of(0, start)) for start in range(0, FRAMES_EACH, BATCH)),
        messages.post(PerspectiveEnd(0, 0.0, FRAMES_EACH)),
        messages.post(Reference(0, 0.0, (0.0, 0.0), GroundTruthSource.SIMULATED, 0.0), reference_arrays(7)),
        messages.post(NoReference(0)),
    ]


def test_what_comes_again_for_a_closed_perspective_is_kept_by_the_publisher_until_the_disk_holds_the_images(
    messages, receiver
):
    """As after the acquisition was started again: an edge killed before that must be sent everything once more."""
    messages.post(SCAN_START)
    post_perspective(messages)
    receiver.receive(0.0)
    receiver.close_section(receiver.sections[0])
    messages.post(SCAN_START)
    again = post_perspective(messages)
    receiver.receive(0.0)
    assert messages.acknowledged == []
    assert set(again) <= set(receiver.final)
    assert receiver.sections == {}


@pytest.mark.parametrize("closed", [False, True])
def test_a_reference_is_warned_of_that_comes_twice_but_not_one_that_a_restarted_acquisition_sends_again(
    messages, receiver, warnings, closed
):
    messages.post(SCAN_START)
    post_perspective(messages)
    receiver.receive(0.0)
    if closed:
        receiver.close_section(receiver.sections[0])
    messages.post(SCAN_START)
    post_perspective(messages)
    receiver.receive(0.0)
    assert warnings == []
    post_perspective(messages)
    receiver.receive(0.0)
    assert len(warnings) == 1


def test_a_scan_that_is_announced_again_has_not_ended(messages, receiver):
    messages.post(SCAN_START)
    messages.post(ScanEnd(0))
    receiver.receive(0.0)
    assert receiver.ended
    messages.post(SCAN_START)
    receiver.receive(0.0)
    assert not receiver.ended


def test_frames_without_a_shape_are_refused_and_do_not_end_the_edge(messages, tmp_path, warnings):
    counter = EdgeCounter()
    receiver = FrameReceiver(
        messages, queue=DeferringQueue(tmp_path), queue_max=1000, counter=counter, warn=warnings.append
    )
    messages.post(SCAN_START)
    malformed = messages.post(Frames(0, 0.0, 0.0), batch_of(0, 0) | {"index": np.zeros((), np.int32)})
    messages.post(Frames(0, 0.0, 0.0), batch_of(0, 0))
    receiver.receive(0.0)
    assert messages.acknowledged == [malformed]
    assert (counter.refused, len(warnings)) == (1, 1)
    assert receiver.sections[0].queued == BATCH


LIGHT = {"probe": np.ones((2, 32, 32), np.complex64), "mask": np.zeros((32, 32), bool)}


def test_the_light_of_a_perspective_is_kept_and_its_message_too_until_the_images_are(messages, receiver):
    messages.post(SCAN_START)
    sequence = messages.post(Probe(0, 3.0), LIGHT)
    post_perspective(messages)
    receiver.receive(0.0)
    perspective = receiver.sections[0]
    assert perspective.illumination.probe.shape == (2, 32, 32)
    assert sequence in perspective.held
    receiver.close_section(perspective)
    again = messages.post(Probe(0, 3.0), LIGHT)
    receiver.receive(0.0)
    assert {sequence, again} <= set(receiver.final)
    assert receiver.sections == {}


@pytest.mark.parametrize(
    "change",
    [
        {"probe": None},
        {"probe": np.ones((2, 32, 31), np.complex64)},
        {"probe": np.ones((32, 32), np.complex64)},
        {"probe": np.ones((0, 32, 32), np.complex64)},
        {"probe": np.ones((65, 32, 32), np.complex64)},
        {"probe": np.ones((2, 32, 32), np.float32)},
        {"probe": np.zeros((2, 32, 32), np.complex64)},
        {"probe": np.full((2, 32, 32), np.nan, np.complex64)},
        {"mask": np.zeros((32, 31), bool)},
        {"mask": np.zeros((32, 32))},
    ],
)
def test_a_probe_that_is_none_is_dropped_and_said(messages, receiver, warnings, change):
    messages.post(SCAN_START)
    arrays = {name: array for name, array in (LIGHT | change).items() if array is not None}
    malformed = messages.post(Probe(0, 0.0), arrays)
    receiver.receive(0.0)
    assert messages.acknowledged == [malformed]
    assert len(warnings) == 1
    assert receiver.sections == {}


def test_a_probe_before_the_announcement_is_dropped(messages, receiver, warnings):
    messages.post(Probe(0, 0.0), LIGHT)
    receiver.receive(0.0)
    assert len(warnings) == 1
