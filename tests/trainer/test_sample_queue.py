from __future__ import annotations

import threading

import numpy as np
import pytest
from trainer_streams import samples

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.interface.stream import SectionEnd, StreamEnd
from ptychoflow.trainer.online.sample_queue import SampleQueue

END = SectionEnd(0)


def put(queue: SampleQueue, *frames: int, sequence: int = 0) -> None:
    staged = queue.stage(numbered(*frames), np.ones(len(frames), bool))
    queue.put_samples(sequence, 0, list(frames), staged)


def numbered(*values: int) -> Arrays:
    arrays = samples(list(values))
    arrays["diffraction"] = np.broadcast_to(np.array(values, np.uint16)[:, None, None], (len(values), 16, 16))
    return arrays


def drain(queue: SampleQueue, size: int) -> list[list[int]]:
    found = []
    while (minibatch := queue.next_minibatch(size, timeout_s=0.0)) is not None:
        assert {name: len(tensor) for name, tensor in minibatch.items()} == dict.fromkeys(
            minibatch, len(minibatch["phase"])
        )
        found.append(minibatch["diffraction"][:, 0, 0].tolist())
        queue.mark_trained()
    return found


def test_minibatches_keep_the_order_and_stop_at_the_end_of_a_perspective() -> None:
    queue = SampleQueue(limit=100)
    put(queue, 0, 1, 2, 3, 4)
    put(queue, 5, 6)
    assert drain(queue, 3) == [[0, 1, 2], [3, 4, 5]], "one sample waits for two more"
    assert queue.end is None
    queue.put_section_end(1, END)
    put(queue, 7, 8, 9, 10)
    assert drain(queue, 3) == [[6]], "the rest of the perspective is a smaller minibatch"
    assert queue.end == END
    queue.begin_next_section()
    assert drain(queue, 3) == [[7, 8, 9]]
    queue.put_stream_end()
    assert queue.end is None
    assert drain(queue, 3) == [[10]]
    assert queue.end == StreamEnd()


def test_an_end_cannot_be_passed_before_its_samples() -> None:
    queue = SampleQueue(limit=100)
    put(queue, 0)
    queue.put_section_end(1, END)
    with pytest.raises(RuntimeError, match="no end"):
        queue.begin_next_section()


def test_a_waiting_reader_gets_samples_as_soon_as_they_come() -> None:
    queue = SampleQueue(limit=100)
    timer = threading.Timer(0.05, put, [queue, 0, 1])
    timer.start()
    minibatch = queue.next_minibatch(2, timeout_s=20.0)
    timer.join()
    assert minibatch is not None
    assert len(minibatch["phase"]) == 2


def test_a_full_queue_has_room_again_after_a_minibatch() -> None:
    queue = SampleQueue(limit=4)
    put(queue, 0, 1, 2, 3)
    assert not queue.wait_for_room(0.0)
    timer = threading.Timer(0.05, queue.next_minibatch, [2], {"timeout_s": 0.0})
    timer.start()
    assert queue.wait_for_room(20.0)
    timer.join()


def test_a_minibatch_is_settled_by_the_ids_of_its_frames_whichever_messages_they_came_with() -> None:
    queue = SampleQueue(limit=100)
    put(queue, 0, 1, 2, sequence=5)
    put(queue, 3, 4, sequence=6)
    queue.next_minibatch(4, timeout_s=0.0)
    assert queue.pending_frames() == {0: {0, 1, 2, 3, 4}}, "what is in hand is not done with"
    queue.mark_trained()
    assert queue.pending_frames() == {0: {4}}
    assert queue.pop_acknowledgeable() == [5]
    put(queue, 9, sequence=7)
    queue.next_minibatch(1, timeout_s=0.0)
    queue.mark_trained()
    queue.mark_refused("test", 1)
    assert (queue.counts.trained, queue.counts.rejected) == (4, {"test": 1})
    assert queue.pop_acknowledgeable() == [6]


def test_a_minibatch_that_was_not_marked_is_not_forgotten() -> None:
    queue = SampleQueue(limit=100)
    put(queue, 0, 1)
    queue.next_minibatch(1, timeout_s=0.0)
    with pytest.raises(RuntimeError, match="neither as trained on nor as refused"):
        queue.next_minibatch(1, timeout_s=0.0)


def test_nothing_is_refused_where_there_was_no_minibatch() -> None:
    queue = SampleQueue(limit=100)
    queue.mark_refused("test", 0)
    assert not queue.counts.rejected


def test_samples_lie_where_their_minibatch_does_before_it_is_asked_for() -> None:
    queue = SampleQueue(limit=1000)
    put(queue, *range(5), sequence=1)
    first = queue.next_minibatch(3, timeout_s=0.0)
    assert first is not None
    assert first["diffraction"][:, 0, 0].tolist() == [0, 1, 2]
    queue.mark_trained()
    for number in range(12):
        put(queue, *range(5 + 4 * number, 9 + 4 * number), sequence=2 + number)
    found, memory = [], []
    while (minibatch := queue.next_minibatch(3, timeout_s=0.0)) is not None:
        found += minibatch["diffraction"][:, 0, 0].tolist()
        memory.append(minibatch["phase"].untyped_storage().nbytes() // minibatch["phase"].nbytes)
        queue.mark_trained()
    assert found == list(range(3, 51))
    assert memory[12:] == [1] * 4, "no longer cut out of a larger slot, once those of before are used up"
    queue.put_section_end(20, END)
    put(queue, *range(100, 104), sequence=21)
    assert drain(queue, 3) == [[51, 52]]
    queue.begin_next_section()
    assert drain(queue, 3) == [[100, 101, 102]], "the next section begins with a minibatch of its own"


def test_rows_that_are_left_out_leave_no_gap_and_what_came_may_be_written_to() -> None:
    queue = SampleQueue(limit=100)
    arrays = numbered(*range(10)) | {"diffraction": numbered(*range(10))["diffraction"].copy()}
    expected = {name: array.copy() for name, array in arrays.items()}
    chosen = np.array([True, False, True, True, False, False, True, True, True, False])
    queue.put_samples(0, 0, np.flatnonzero(chosen).tolist(), queue.stage(arrays, chosen))
    queue.put_stream_end()
    for array in arrays.values():
        array[:] = 0
    queue.stage(arrays, chosen)
    minibatch = queue.next_minibatch(10, timeout_s=0.0)
    assert minibatch is not None
    for name, tensor in minibatch.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name][chosen], strict=True)


def test_a_minibatch_larger_than_a_slot_is_joined() -> None:
    queue = SampleQueue(limit=5000)
    queue.next_minibatch(1500, timeout_s=0.0)
    put(queue, *range(2000))
    minibatch = queue.next_minibatch(1500, timeout_s=0.0)
    assert minibatch is not None
    assert minibatch["diffraction"][:, 0, 0].tolist() == list(range(1500))
