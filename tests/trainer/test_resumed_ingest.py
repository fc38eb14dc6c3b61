"""What a rank that goes on from a checkpoint takes of the stream, and when it lets the publisher forget."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from checkpoint_files import save
from trainer_streams import samples, scan_start

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole, PerspectiveEnd, Samples, ScanEnd
from ptychoflow.trainer.checkpoints.checkpoint import Checkpoint, Marker
from ptychoflow.trainer.checkpoints.state_file import read_state, write_state
from ptychoflow.trainer.interface.stream import SectionEnd, StreamEnd
from ptychoflow.trainer.online.frame_indices import FrameIndices, Runs, indices_in, runs_of
from ptychoflow.trainer.online.ingest import Progress, SampleIngest
from ptychoflow.trainer.online.stream_checkpoint import (
    join_progress,
    load_validation,
    progress_state,
    validation_state,
)
from ptychoflow.trainer.pipelines.choice import format_of

END = PerspectiveEnd(perspective=0, angle_deg=0.0, frames=9)


def opened(earlier: Progress | None = None) -> SampleIngest:
    ingest = SampleIngest(format_of, queue_samples=100, until_checkpoint=True, earlier=earlier)
    ingest.route_message(0, scan_start(), {})
    return ingest


def train_on(ingest: SampleIngest, count: int) -> None:
    minibatch = ingest.queue.next_minibatch(count, timeout_s=0.0)
    assert minibatch is not None
    assert len(minibatch["phase"]) == count
    ingest.queue.mark_trained()


def done(progress: Progress) -> dict[int, list[int]]:
    return {perspective: sorted(set(indices_in(runs).tolist())) for perspective, runs in progress.done.items()}


def waiting(ingest: SampleIngest) -> int:
    minibatch = ingest.queue.next_minibatch(100, timeout_s=0.0)
    return 0 if minibatch is None else len(minibatch["phase"])


def test_a_message_is_acknowledged_only_when_a_checkpoint_that_holds_it_is_complete() -> None:
    ingest = opened()
    ingest.route_message(1, Samples(perspective=0), samples([0, 1, 2, 3]))
    ingest.route_message(2, Samples(perspective=0), samples([4, 5, 6, 7]))
    train_on(ingest, 6)
    assert ingest.queue.pop_acknowledgeable() == []
    progress, _, covered = ingest.progress()
    train_on(ingest, 2)
    assert done(progress) == {0: [0, 1, 2, 3, 4, 5]}
    assert progress.counts.trained == 6
    assert covered == [1], "of the second message, two samples were not trained on when the checkpoint was taken"
    assert ingest.queue.pop_acknowledgeable() == []
    ingest.queue.release(covered)
    assert ingest.queue.pop_acknowledgeable() == [1]
    assert ingest.progress()[2] == [2]


def test_at_the_end_of_training_everything_is_acknowledged() -> None:
    ingest = opened()
    ingest.route_message(1, Samples(perspective=0), samples([0, 1]))
    ingest.route_message(2, END, {})
    ingest.route_message(3, ScanEnd(2), {})
    train_on(ingest, 2)
    ingest.queue.begin_next_section()
    assert ingest.queue.pop_acknowledgeable() == []
    ingest.queue.release_all_settled()
    ingest.queue.release_kept()
    assert sorted(ingest.queue.pop_acknowledgeable()) == [0, 1, 2, 3]


def test_the_end_of_a_perspective_is_held_back_until_all_ranks_have_passed_it_and_then_comes_once() -> None:
    ingest = opened()
    ingest.route_message(1, END, {})
    behind, _, covered = ingest.progress()
    assert covered == []
    assert opened(behind).queue.end is None
    ingest.queue.begin_next_section()
    passed, _, covered = ingest.progress()
    assert covered == [1]
    resumed = opened(passed)
    resumed.route_message(1, END, {})
    assert resumed.queue.end is None
    assert resumed.progress()[2] == [1], "it is done with"


def test_an_end_that_comes_again_from_a_restarted_acquisition_ends_nothing_twice() -> None:
    """The first one still waits: the loop is behind the stream."""
    ingest = opened()
    for first in (1, 4):
        ingest.route_message(first, scan_start(), {})
        ingest.route_message(first + 1, Samples(perspective=0), samples([0, 1]))
        ingest.route_message(first + 2, END, {})
    ingest.route_message(7, ScanEnd(2), {})
    train_on(ingest, 2)
    assert ingest.queue.end == SectionEnd(0)
    ingest.queue.begin_next_section()
    assert ingest.queue.end == StreamEnd()


def test_a_checkpoint_may_be_taken_while_a_perspective_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = opened()
    ingest.route_message(1, Samples(perspective=0), samples([0, 1]))
    arriving = threading.Thread(target=ingest.route_message, args=(2, Samples(perspective=1), samples([0])))
    without = FrameIndices.without

    def begun_meanwhile(indices: FrameIndices, pending: set[int]) -> Runs:
        if not arriving.ident:
            arriving.start()
            arriving.join(0.3)
        return without(indices, pending)

    monkeypatch.setattr(FrameIndices, "without", begun_meanwhile)
    progress = ingest.progress()[0]
    arriving.join(30.0)
    assert list(progress.done) == [0]
    train_on(ingest, 3)


def test_frames_that_come_again_are_trained_on_if_the_checkpoint_does_not_hold_them_and_never_twice() -> None:
    killed = opened()
    rows = samples(range(9))
    rows["role"][[2, 7]] = FrameRole.VALIDATION
    rows["phase"][4] = np.nan
    killed.route_message(1, Samples(perspective=0), rows)
    train_on(killed, 3)
    progress, validation, _ = killed.progress()
    train_on(killed, 2)
    assert done(progress) == {0: [0, 1, 2, 3, 4, 7]}
    assert {perspective: sum(len(part["phase"]) for part in parts) for perspective, parts in validation.items()} == {
        0: 2
    }
    resumed = opened(progress)
    resumed.route_message(1, Samples(perspective=0), rows)
    resumed.route_message(2, END, {})
    assert waiting(resumed) == 4 - 1
    resumed.queue.mark_trained()
    counts = resumed.counts
    assert (counts.trained, counts.validation, sum(counts.rejected.values())) == (6, 2, 1)


def progress_of(frames: list[int], trained: int, rejected: int) -> Progress:
    progress = opened().progress()[0]
    progress.done = {0: runs_of(np.array(frames, np.int32))}
    progress.frame_dtype = "uint16"
    progress.ended_perspectives = {0}
    progress.counts.trained, progress.counts.rejected = trained, Counter({"not finite": rejected})
    return progress


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_on_any_number_of_ranks_each_knows_all_frames_and_the_counts_stay_the_same(tmp_path: Path, ranks: int) -> None:
    before = [progress_of([0, 2, 4], trained=2, rejected=1), progress_of([1, 3], trained=2, rejected=0)]
    for rank, progress in enumerate(before):
        write_state(progress_state(progress), tmp_path / str(rank))
    shards = [read_state(tmp_path / str(rank)) for rank in range(2)]
    after = [join_progress(shards, rank=rank, ranks=ranks) for rank in range(ranks)]
    for progress in after:
        assert done(progress) == {0: [0, 1, 2, 3, 4]}
        assert (progress.scan, progress.frame_dtype) == (scan_start(), "uint16")
        assert progress.ended_perspectives == {0}
    assert sum(progress.counts.trained for progress in after) == 4
    assert sum(progress.counts.rejected["not finite"] for progress in after) == 1


def test_validation_samples_come_back_by_perspective(tmp_path: Path) -> None:
    ingest = opened()
    for perspective, frames in ((3, [0, 1]), (3, [2]), (5, [0])):
        ingest.route_message(1, Samples(perspective), samples(frames, role=FrameRole.VALIDATION))
    _, validation, _ = ingest.progress()
    assert ingest.progress()[1] == {}, "each is written once"
    path = save(tmp_path, step=1, common={}, shard={}, keep=1)
    (tmp_path / "validation").mkdir()
    write_state(validation_state(validation), tmp_path / "validation" / "first")
    loaded = load_validation(Checkpoint(path, Marker(ranks=1, file_bytes={})), ["first"])
    resumed = SampleIngest(format_of, queue_samples=10, validation=loaded).validation()
    for perspective, arrays in ingest.validation().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(resumed[perspective][name], array)
            assert resumed[perspective][name].dtype == array.dtype
    assert torch.from_numpy(resumed[3]["diffraction"]).shape[0] == 3


def test_a_run_that_was_resumed_in_a_renamed_folder_announces_the_same_scan() -> None:
    earlier = opened().progress()[0]
    resumed = SampleIngest(format_of, queue_samples=10, until_checkpoint=True, earlier=earlier)
    renamed = msgspec.structs.replace(scan_start(), run="renamed")
    resumed.route_message(0, renamed, {})
    assert resumed.scan == renamed


def test_the_announcement_of_another_scan_is_refused() -> None:
    ingest = opened()
    resumed = SampleIngest(format_of, queue_samples=10, until_checkpoint=True, earlier=ingest.progress()[0])
    with pytest.raises(UserError, match="another one than the checkpoint's"):
        resumed.route_message(0, msgspec.structs.replace(scan_start(), energy_eV=8.0), {})
