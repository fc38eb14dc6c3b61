from __future__ import annotations

import re

import numpy as np
import pytest
from trainer_streams import samples, scan_start

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FrameRole, PerspectiveEnd, Samples, ScanEnd
from ptychoflow.trainer.online.ingest import NO_SCAN, NOT_USABLE, Arrivals
from ptychoflow.trainer.pipelines.formats import format_of


@pytest.fixture
def arrivals() -> Arrivals:
    arrivals = Arrivals(format_of, queue_samples=100)
    arrivals.take(0, scan_start(), {})
    return arrivals


def refused(arrivals: Arrivals) -> int:
    return sum(arrivals.counts.rejected.values())


def waiting(arrivals: Arrivals) -> int:
    minibatch = arrivals.queue.next_minibatch(1000, timeout_s=0.0)
    return len(minibatch["phase"]) if minibatch else 0


def end_perspective(arrivals: Arrivals) -> None:
    arrivals.take(1000, PerspectiveEnd(perspective=0, angle_deg=0.0, frames=0), {})


def test_validation_samples_are_kept_apart_by_perspective(arrivals: Arrivals) -> None:
    mixed = samples(range(5))
    mixed["role"][[1, 3]] = FrameRole.VALIDATION
    arrivals.take(1, Samples(perspective=0), mixed)
    arrivals.take(2, Samples(perspective=4), samples([9], role=FrameRole.VALIDATION))
    end_perspective(arrivals)
    validation = arrivals.validation()
    assert {perspective: len(found["phase"]) for perspective, found in validation.items()} == {0: 2, 4: 1}
    np.testing.assert_array_equal(validation[0]["phase"], mixed["phase"][[1, 3]])
    assert arrivals.counts.validation == 3
    assert waiting(arrivals) == 3


def test_a_frame_counts_once(arrivals: Arrivals) -> None:
    arrivals.take(1, Samples(perspective=0), samples([0, 1, 2]))
    arrivals.take(2, Samples(perspective=0), samples([2, 3, 3]))
    arrivals.take(3, Samples(perspective=1), samples([0]))
    end_perspective(arrivals)
    assert arrivals.counts.duplicates == 2
    assert waiting(arrivals) == 5


def test_samples_that_are_not_finite_are_refused(arrivals: Arrivals) -> None:
    bad = samples(range(4))
    bad["phase"][0, 2, 2] = np.nan
    bad["amplitude"][3, 0, 0] = np.inf
    arrivals.take(1, Samples(perspective=0), bad)
    end_perspective(arrivals)
    assert arrivals.counts.rejected == {NOT_USABLE: 2}
    assert waiting(arrivals) == 2


def test_frames_that_are_not_finite_or_held_out_are_refused(arrivals: Arrivals) -> None:
    bad = samples(range(3))
    bad["diffraction"] = bad["diffraction"].astype(np.float32)
    bad["diffraction"][1, 0, 0] = np.nan
    bad["role"][2] = FrameRole.HELD_OUT
    arrivals.take(1, Samples(perspective=0), bad)
    end_perspective(arrivals)
    assert arrivals.counts.rejected == {NOT_USABLE: 2}
    assert waiting(arrivals) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"diffraction": np.ones((3, 8, 8), np.uint16)}, r"diffraction has shape \(3, 8, 8\), expected \(3, 16, 16\)"),
        ({"phase": np.ones((2, 8, 8), np.float16)}, "phase has shape"),
        ({"amplitude": np.ones((3, 8, 8), np.float32)}, "must be float16"),
        ({"diffraction": np.ones((3, 16, 16), np.complex64)}, "diffraction is complex64"),
    ],
)
def test_a_message_of_another_shape_is_refused_whole(arrivals: Arrivals, change: Arrays, reason: str) -> None:
    arrivals.take(1, Samples(perspective=0), samples([0, 1, 2]) | change)
    assert refused(arrivals) == 3
    (found,) = arrivals.counts.rejected
    assert re.search(reason, found)
    assert arrivals.settlement.acknowledgeable() == [1], "what is refused is done with"


def test_the_dtype_of_frames_does_not_change_within_a_scan(arrivals: Arrivals) -> None:
    arrivals.take(1, Samples(perspective=0), samples([0]))
    other = samples([1])
    arrivals.take(2, Samples(perspective=0), other | {"diffraction": other["diffraction"].astype(np.uint32)})
    assert arrivals.counts.rejected == {"diffraction is uint32, expected uint16": 1}


def test_samples_before_the_announcement_are_refused() -> None:
    arrivals = Arrivals(format_of, queue_samples=10)
    arrivals.take(0, Samples(perspective=0), samples([0, 1]))
    assert arrivals.counts.rejected == {NO_SCAN: 2}


def test_a_message_is_settled_once_all_its_training_samples_are_trained_on(arrivals: Arrivals) -> None:
    arrivals.take(1, Samples(perspective=0), samples([0, 1, 2]))
    arrivals.take(2, Samples(perspective=0), samples([3, 4], role=FrameRole.VALIDATION))
    arrivals.take(3, Samples(perspective=0), samples([5, 6]))
    assert arrivals.settlement.acknowledgeable() == []
    arrivals.trained(2)
    assert arrivals.settlement.acknowledgeable() == []
    arrivals.trained(1)
    assert arrivals.settlement.acknowledgeable() == [1, 2], "validation samples are done with when they are stored"
    arrivals.reject(2, reason="test")
    assert arrivals.settlement.acknowledgeable() == [3]
    assert (arrivals.counts.trained, refused(arrivals)) == (3, 2)


def test_the_announcement_is_kept_for_a_successor_until_the_scan_ends(arrivals: Arrivals) -> None:
    arrivals.take(1, Samples(perspective=0), samples([0]))
    arrivals.trained(1)
    assert arrivals.settlement.acknowledgeable() == [1]
    arrivals.take(2, ScanEnd(frames=1), {})
    assert arrivals.settlement.acknowledgeable() == []
    arrivals.end_scan()
    assert arrivals.settlement.acknowledgeable() == [0, 2]
