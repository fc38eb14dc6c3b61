"""Damaged messages of DECTRIS detectors end nothing, and most of what is not damaged still arrives."""

import dectris_v1_messages
import dectris_v2_messages
import pytest
from mutated_messages import Stream, feed


@pytest.mark.parametrize("stream", [dectris_v1_messages.STREAM, dectris_v2_messages.STREAM], ids=["v1", "v2"])
def test_mutated_messages_are_told_and_passed_over(stream: Stream) -> None:
    outcome = feed(stream, 3000, seed=0)
    assert outcome.malformed > 100
    assert outcome.frames > 600
    assert outcome.damaged_frames > 0
    assert outcome.most_memory_bytes < 200 << 20


def test_messages_that_come_together_say_what_they_say_one_by_one() -> None:
    outcome = feed(dectris_v2_messages.ALIKE, 2000, seed=0)
    assert outcome.together > 700
    assert outcome.malformed > 10
    assert outcome.damaged_frames > 0
