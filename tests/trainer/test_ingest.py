from __future__ import annotations

import re
import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from ranks_in_processes import run_in_ranks
from trainer_streams import samples, scan_start

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FrameRole, PerspectiveEnd, Samples, ScanEnd
from ptychoflow.trainer.online.ingest import NO_SCAN, NOT_USABLE, SampleIngest
from ptychoflow.trainer.online.start import wait_for_samples
from ptychoflow.trainer.pipelines.choice import format_of


@pytest.fixture
def ingest() -> SampleIngest:
    ingest = SampleIngest(format_of, queue_samples=100)
    ingest.route_message(0, scan_start(), {})
    return ingest


def refused(ingest: SampleIngest) -> int:
    return sum(ingest.counts.rejected.values())


def waiting(ingest: SampleIngest) -> int:
    minibatch = ingest.queue.next_minibatch(1000, timeout_s=0.0)
    return len(minibatch["phase"]) if minibatch else 0


def end_perspective(ingest: SampleIngest) -> None:
    ingest.route_message(1000, PerspectiveEnd(perspective=0, angle_deg=0.0, frames=0), {})


def test_validation_samples_are_kept_apart_by_perspective(ingest: SampleIngest) -> None:
    mixed = samples(range(5))
    mixed["role"][[1, 3]] = FrameRole.VALIDATION
    ingest.route_message(1, Samples(perspective=0), mixed)
    ingest.route_message(2, Samples(perspective=4), samples([9], role=FrameRole.VALIDATION))
    end_perspective(ingest)
    validation = ingest.validation()
    assert {perspective: len(found["phase"]) for perspective, found in validation.items()} == {0: 2, 4: 1}
    np.testing.assert_array_equal(validation[0]["phase"], mixed["phase"][[1, 3]])
    assert ingest.counts.validation == 3
    assert waiting(ingest) == 3


def test_a_frame_counts_once(ingest: SampleIngest) -> None:
    ingest.route_message(1, Samples(perspective=0), samples([0, 1, 2]))
    ingest.route_message(2, Samples(perspective=0), samples([2, 3, 3]))
    ingest.route_message(3, Samples(perspective=1), samples([0]))
    end_perspective(ingest)
    assert ingest.counts.duplicates == 2
    assert waiting(ingest) == 5


def test_samples_that_are_not_finite_are_refused(ingest: SampleIngest) -> None:
    bad = samples(range(4))
    bad["phase"][0, 2, 2] = np.nan
    bad["amplitude"][3, 0, 0] = np.inf
    ingest.route_message(1, Samples(perspective=0), bad)
    end_perspective(ingest)
    assert ingest.counts.rejected == {NOT_USABLE: 2}
    assert waiting(ingest) == 2


def test_frames_that_are_not_finite_or_held_out_are_refused(ingest: SampleIngest) -> None:
    bad = samples(range(3))
    bad["diffraction"] = bad["diffraction"].astype(np.float32)
    bad["diffraction"][1, 0, 0] = np.nan
    bad["role"][2] = FrameRole.HELD_OUT
    ingest.route_message(1, Samples(perspective=0), bad)
    end_perspective(ingest)
    assert ingest.counts.rejected == {NOT_USABLE: 2}
    assert waiting(ingest) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"diffraction": np.ones((3, 8, 8), np.uint16)}, r"diffraction has shape \(3, 8, 8\), expected \(3, 16, 16\)"),
        ({"phase": np.ones((2, 8, 8), np.float16)}, "phase has shape"),
        ({"amplitude": np.ones((3, 8, 8), np.float32)}, "must be float16"),
        ({"diffraction": np.ones((3, 16, 16), np.complex64)}, "diffraction is complex64"),
    ],
)
def test_a_message_of_another_shape_is_refused_whole(ingest: SampleIngest, change: Arrays, reason: str) -> None:
    ingest.route_message(1, Samples(perspective=0), samples([0, 1, 2]) | change)
    assert refused(ingest) == 3
    (found,) = ingest.counts.rejected
    assert re.search(reason, found)
    assert ingest.queue.pop_acknowledgeable() == [1], "what is refused is done with"


def test_the_dtype_of_frames_does_not_change_within_a_scan(ingest: SampleIngest) -> None:
    ingest.route_message(1, Samples(perspective=0), samples([0]))
    other = samples([1])
    ingest.route_message(2, Samples(perspective=0), other | {"diffraction": other["diffraction"].astype(np.uint32)})
    assert ingest.counts.rejected == {"diffraction is uint32, expected uint16": 1}


def begin_with(rank: int, dtypes: tuple[str | None, str | None]) -> tuple[str | None, int, dict[str, int], int]:
    """Return the dtype of the network's input, samples that wait on this rank and are refused, and settled messages."""
    ingest = SampleIngest(format_of, queue_samples=100)
    ingest.route_message(0, scan_start(), {})
    if (own := dtypes[rank]) is not None:
        ingest.route_message(1, Samples(perspective=rank), of_dtype(own, range(3)))
    announced = wait_for_samples(ingest, stop=threading.Event())
    assert announced is not None
    for sequence, dtype in enumerate(("float32", "uint16"), start=2):
        ingest.route_message(
            sequence, Samples(perspective=rank), of_dtype(dtype, range(10 * sequence, 10 * sequence + 4))
        )
    end_perspective(ingest)
    settled = len(ingest.queue.pop_acknowledgeable())
    frames = ingest.queue.next_minibatch(100, timeout_s=0.0)
    assert frames is not None
    assert str(frames["diffraction"].dtype) == f"torch.{announced.frame_dtype}"
    return announced.frame_dtype, len(frames["diffraction"]), dict(ingest.counts.rejected), settled


def of_dtype(dtype: str, index: range) -> Arrays:
    made = samples(index)
    return made | {"diffraction": made["diffraction"].astype(dtype)}


@pytest.mark.parametrize("dtypes", [("uint16", "float32"), ("float32", "uint16"), ("uint16", None), (None, "uint16")])
def test_frames_of_another_dtype_than_other_ranks_frames_are_refused(dtypes: tuple[str | None, str | None]) -> None:
    """On the rank that they came to first, too: the network and the buffer of all ranks take one dtype."""
    for rank, (dtype, waiting, rejected, settled) in enumerate(run_in_ranks(begin_with, 2, dtypes)):
        own = dtypes[rank]
        assert dtype == "uint16"
        assert waiting == (7 if own == dtype else 4)
        assert rejected == {"diffraction is float32, expected uint16": 4} | (
            {"frames are float32, expected uint16": 3} if own == "float32" else {}
        )
        assert settled == {"uint16": 0, None: 1, "float32": 2}[own], "what waits keeps what came later"


def test_validation_frames_of_another_dtype_are_no_refusal(ingest: SampleIngest) -> None:
    """They may have come before any rank had a frame to train on; the network takes any dtype to evaluate."""
    held = samples(range(3), role=FrameRole.VALIDATION)
    ingest.route_message(1, Samples(perspective=0), held | {"diffraction": held["diffraction"].astype(np.float32)})
    ingest.hold_to("uint16")
    assert not ingest.counts.rejected, "a warning would tell of samples that are refused"
    ingest.route_message(2, Samples(perspective=0), samples(range(10, 14)))
    end_perspective(ingest)
    assert (waiting(ingest), ingest.counts.validation) == (4, 3)


@pytest.mark.parametrize("index", [np.array([0.5, 1.5]), np.zeros((2, 1), np.int32), np.array([2**40, 1])])
def test_samples_whose_index_names_no_frames_are_refused(ingest: SampleIngest, index: NDArray[np.generic]) -> None:
    ingest.route_message(1, Samples(perspective=0), samples([0, 1]) | {"index": index})
    assert ingest.counts.rejected == {NO_SCAN: 2}
    assert ingest.queue.pop_acknowledgeable() == [1]


def test_samples_before_the_announcement_are_refused() -> None:
    ingest = SampleIngest(format_of, queue_samples=10)
    ingest.route_message(0, Samples(perspective=0), samples([0, 1]))
    assert ingest.counts.rejected == {NO_SCAN: 2}


def test_a_message_is_settled_once_all_its_training_samples_are_trained_on(ingest: SampleIngest) -> None:
    ingest.route_message(1, Samples(perspective=0), samples([0, 1, 2]))
    ingest.route_message(2, Samples(perspective=0), samples([3, 4], role=FrameRole.VALIDATION))
    ingest.route_message(3, Samples(perspective=0), samples([5, 6]))
    assert ingest.queue.pop_acknowledgeable() == []
    ingest.queue.next_minibatch(2, timeout_s=0.0)
    ingest.queue.mark_trained()
    assert ingest.queue.pop_acknowledgeable() == []
    ingest.queue.next_minibatch(1, timeout_s=0.0)
    ingest.queue.mark_trained()
    assert ingest.queue.pop_acknowledgeable() == [1, 2], "validation samples are done with when they are stored"
    ingest.queue.next_minibatch(2, timeout_s=0.0)
    ingest.queue.mark_trained()
    ingest.queue.mark_refused("test", 2)
    assert ingest.queue.pop_acknowledgeable() == [3]
    assert (ingest.counts.trained, refused(ingest)) == (3, 2)


def test_the_announcement_is_kept_for_a_successor_until_the_scan_ends(ingest: SampleIngest) -> None:
    ingest.route_message(1, Samples(perspective=0), samples([0]))
    ingest.queue.next_minibatch(1, timeout_s=0.0)
    ingest.queue.mark_trained()
    assert ingest.queue.pop_acknowledgeable() == [1]
    ingest.route_message(2, ScanEnd(frames=1), {})
    assert ingest.queue.pop_acknowledgeable() == []
    ingest.queue.release_kept()
    assert ingest.queue.pop_acknowledgeable() == [0, 2]
