from __future__ import annotations

import threading

import numpy as np
import pytest
from trainer_streams import samples

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import PerspectiveEnd, ScanEnd
from ptychoflow.trainer.online.sample_queue import SampleQueue

END = PerspectiveEnd(perspective=0, angle_deg=0.0, frames=7)


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
    return found


def test_minibatches_keep_the_order_and_stop_at_the_end_of_a_perspective() -> None:
    queue = SampleQueue(limit=100)
    queue.put(numbered(0, 1, 2, 3, 4))
    queue.put(numbered(5, 6))
    assert drain(queue, 3) == [[0, 1, 2], [3, 4, 5]], "one sample waits for two more"
    assert queue.marker is None
    queue.put(END)
    queue.put(numbered(7, 8, 9, 10))
    assert drain(queue, 3) == [[6]], "the rest of the perspective is a smaller minibatch"
    assert queue.marker == END
    queue.pass_marker()
    assert drain(queue, 3) == [[7, 8, 9]]
    queue.put(ScanEnd(frames=11))
    assert queue.marker is None
    assert drain(queue, 3) == [[10]]
    assert queue.marker == ScanEnd(frames=11)


def test_a_marker_cannot_be_passed_before_its_samples() -> None:
    queue = SampleQueue(limit=100)
    queue.put(numbered(0))
    queue.put(END)
    with pytest.raises(RuntimeError, match="no marker"):
        queue.pass_marker()


def test_a_waiting_reader_gets_samples_as_soon_as_they_come() -> None:
    queue = SampleQueue(limit=100)
    timer = threading.Timer(0.05, queue.put, [numbered(0, 1)])
    timer.start()
    minibatch = queue.next_minibatch(2, timeout_s=20.0)
    timer.join()
    assert minibatch is not None
    assert len(minibatch["phase"]) == 2


def test_a_full_queue_has_room_again_after_a_minibatch() -> None:
    queue = SampleQueue(limit=4)
    queue.put(numbered(0, 1, 2, 3))
    assert queue.is_full
    assert not queue.wait_for_room(0.0)
    timer = threading.Timer(0.05, queue.next_minibatch, [2], {"timeout_s": 0.0})
    timer.start()
    assert queue.wait_for_room(20.0)
    timer.join()
