"""Which frames have come: as a set of numbers would have it, in as little memory as they have gaps."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ptychoflow.trainer.online.frame_indices import FrameIndices, indices_in, runs_of

INDICES = st.lists(st.one_of(st.integers(-3, 30), st.sampled_from([-(2**31), 2**31 - 1])), max_size=40)


def int32(indices: list[int]) -> np.ndarray:
    return np.array(indices, np.int32)


def test_an_unbroken_run_takes_no_memory_to_speak_of() -> None:
    indices = FrameIndices()
    tracemalloc.start()
    for start in range(0, 10**5, 5000):
        batch = np.arange(start, start + 5000, dtype=np.int32)
        assert indices.fresh(batch).all()
        indices.add(batch)
    del batch
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held_bytes < 10**4
    assert indices.without(set()).tolist() == [[0, 99_999]]
    assert indices.without({0, 2, 10**7}).tolist() == [[1, 1], [3, 99_999]]


@given(
    batches=st.lists(st.tuples(INDICES, st.booleans()), max_size=5), asked=INDICES, removed=st.sets(st.integers(0, 9))
)
def test_it_is_what_a_set_would_be(batches: list[tuple[list[int], bool]], asked: list[int], removed: set[int]) -> None:
    indices, reference = FrameIndices(), set[int]()
    for batch, sort_in in batches:
        expected = [one not in reference and one not in batch[:place] for place, one in enumerate(batch)]
        assert indices.fresh(int32(batch)).tolist() == expected
        indices.add(int32(batch))
        reference |= set(batch)
        if sort_in:
            indices.sort_in()
    assert indices_in(indices.without(removed)).tolist() == sorted(reference - removed)
    again = FrameIndices(np.concatenate([indices.without(set()), runs_of(int32(sorted(set(asked))))])[::-1])
    assert not again.fresh(int32([*reference, *asked])).any()
    assert indices_in(again.without(set())).tolist() == sorted(reference | set(asked))
    assert (np.diff(again.without(set()).ravel().astype(np.int64)) >= 0).all(), "runs are in order"


def test_a_checkpoint_of_an_earlier_version_holds_every_index() -> None:
    listed = int32([7, 3, 4, 5, 9])
    assert FrameIndices(np.stack([listed, listed], axis=1)).without(set()).tolist() == [[3, 5], [7, 7], [9, 9]]
