"""Damaged messages about positions and files end nothing, and most of what is not damaged still arrives."""

import bluesky_documents_messages
import hdf5_swmr_messages
import panda_messages
import position_sender_messages
import position_table_messages
import pytest
import watched_folder_messages
from mutated_messages import Stream, feed

STREAMS = {
    "bluesky-documents": bluesky_documents_messages.STREAM,
    "panda": panda_messages.STREAM,
    "position-sender": position_sender_messages.STREAM,
    "position-table": position_table_messages.STREAM,
    "hdf5-swmr": hdf5_swmr_messages.STREAM,
    "watched-folder": watched_folder_messages.STREAM,
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_mutated_messages_are_told_and_passed_over(stream: Stream) -> None:
    outcome = feed(stream, 3000, seed=0)
    assert outcome.malformed > 300
    assert outcome.arrivals - outcome.malformed > 500
    assert outcome.most_memory_bytes < 200 << 20
