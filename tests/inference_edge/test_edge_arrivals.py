"""What the edge does with messages, and when it lets the publisher forget them."""

from __future__ import annotations

import pytest
from edge_run import BATCH, FRAMES_EACH, SCAN_START, batch_of, reference_arrays
from posted_messages import Messages

from ptychoflow.inference_edge.arrivals import Arrivals
from ptychoflow.inference_edge.reporting import EdgeCounter
from ptychoflow.streaming.messages import Frames, GroundTruthSource, NoReference, PerspectiveEnd, Reference, ScanEnd


@pytest.fixture
def messages():
    return Messages()


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def arrivals(messages, tmp_path, warnings):
    return Arrivals(messages, queue_max=1000, spool_dir=tmp_path, counter=EdgeCounter(), warn=warnings.append)


def post_perspective(messages: Messages) -> list[int]:
    return [
        *(messages.post(Frames(0, 0.0, 0.0), batch_of(0, start)) for start in range(0, FRAMES_EACH, BATCH)),
        messages.post(PerspectiveEnd(0, 0.0, FRAMES_EACH)),
        messages.post(Reference(0, 0.0, (0.0, 0.0), GroundTruthSource.SIMULATED, 0.0), reference_arrays(7)),
        messages.post(NoReference(0)),
    ]


def test_what_comes_again_for_a_closed_perspective_is_kept_by_the_publisher_until_the_disk_holds_the_images(
    messages, arrivals
):
    """As after the acquisition was started again: an edge killed before that must be sent everything once more."""
    messages.post(SCAN_START)
    post_perspective(messages)
    arrivals.receive(0.0)
    arrivals.close(arrivals.perspectives[0])
    messages.post(SCAN_START)
    again = post_perspective(messages)
    arrivals.receive(0.0)
    assert messages.acknowledged == []
    assert set(again) <= set(arrivals.final)
    assert arrivals.perspectives == {}


@pytest.mark.parametrize("closed", [False, True])
def test_a_reference_is_warned_of_that_comes_twice_but_not_one_that_a_restarted_acquisition_sends_again(
    messages, arrivals, warnings, closed
):
    messages.post(SCAN_START)
    post_perspective(messages)
    arrivals.receive(0.0)
    if closed:
        arrivals.close(arrivals.perspectives[0])
    messages.post(SCAN_START)
    post_perspective(messages)
    arrivals.receive(0.0)
    assert warnings == []
    post_perspective(messages)
    arrivals.receive(0.0)
    assert len(warnings) == 1


def test_a_scan_that_is_announced_again_has_not_ended(messages, arrivals):
    messages.post(SCAN_START)
    messages.post(ScanEnd(0))
    arrivals.receive(0.0)
    assert arrivals.scan_ended
    messages.post(SCAN_START)
    arrivals.receive(0.0)
    assert not arrivals.scan_ended
