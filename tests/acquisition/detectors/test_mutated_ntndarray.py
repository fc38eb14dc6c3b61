"""Damaged NTNDArrays by the thousand."""

from mutated_messages import feed
from ntndarray_messages import STREAM


def test_mutated_messages_are_told_and_passed_over():
    outcome = feed(STREAM, 3000, seed=0)
    assert outcome.frames > 1000
    assert outcome.malformed > 500
    assert outcome.damaged_frames > 100
    assert outcome.most_memory_bytes < 1 << 28
