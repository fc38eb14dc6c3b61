"""What was received waits in bounded memory and is written in few, whole pieces."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from ptychoflow.acquisition.detectors import receiver_process
from ptychoflow.acquisition.detectors.receiver_process import ReceivedQueue


def test_what_comes_together_is_taken_together_and_in_order() -> None:
    queue = ReceivedQueue(1 << 20)
    for number in range(300):
        queue.put(number % 2, [number.to_bytes(2, "big")])
    taken = []
    while messages := queue.take(0.0):
        assert len(messages) <= receiver_process.WRITTEN_TOGETHER
        taken += messages
    assert [int.from_bytes(message.parts[0], "big") for message in taken] == list(range(300))
    assert [message.source for message in taken] == [0, 1] * 150
    assert queue.take(0.0) == []
    assert queue.take_dropped() == 0


def test_what_memory_does_not_hold_is_counted_and_large_messages_come_a_few_at_once() -> None:
    queue = ReceivedQueue(10 << 20)
    for _ in range(12):
        queue.put(0, [bytes(1 << 20)])
    assert queue.take_dropped() == 2
    assert len(queue.take(0.0)) == 8
    queue.put(0, [bytes(8 << 20)])
    assert [len(messages) for messages in (queue.take(0.0), queue.take(0.0))] == [3, 0]
    queue.put(0, [bytes(20 << 20)])  # more than all memory, but nothing else waits
    assert len(queue.take(0.0)) == 1
    assert queue.take_dropped() == 0


@pytest.mark.parametrize("size", [0, 60])
def test_short_messages_fill_the_memory_that_they_take(size: int) -> None:
    """Positions come one by one, and who means ill sends nothing at all."""
    queue, most_bytes = ReceivedQueue(1 << 20), 1 << 20
    tracemalloc.start()
    try:
        for _ in range(20_000):
            queue.put(0, [bytes(bytearray(size))])
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes // 4 < held_bytes < most_bytes
    assert queue.take_dropped() == 20_000 - most_bytes // receiver_process.LEAST_BYTES


def test_nothing_is_left_behind_while_another_thread_puts() -> None:
    queue = ReceivedQueue(1 << 30)
    count = 20_000

    def put() -> None:
        for number in range(count):
            queue.put(0, [number.to_bytes(4, "big")])

    putting = threading.Thread(target=put)
    putting.start()
    taken = []
    while len(taken) < count and (messages := queue.take(10.0)):
        taken += [int.from_bytes(message.parts[0], "big") for message in messages]
    putting.join()
    assert taken == list(range(count))
