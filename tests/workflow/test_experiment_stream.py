"""Samples of an experiment on disk, and as a stream."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from small_experiment import samples

from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.interface.stream import SectionEnd, StreamEnd
from ptychoflow.workflow.experiments.ptychography.dataset import (
    open_dataset,
    with_fewer_labels,
    write_perspective,
)
from ptychoflow.workflow.experiments.ptychography.settings import (
    FromScratchSettings,
)
from ptychoflow.workflow.experiments.ptychography.stream import (
    Convergence,
    SectionStream,
    everything_at_once,
    in_sequence,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, frames in enumerate((20, 15)):
        write_perspective(samples(index, frames), tmp_path)
    return tmp_path


def test_what_is_written_is_read_back(folder: Path) -> None:
    (folder / "0002").mkdir()  # begun, not complete
    first, second = open_dataset(folder)
    assert (first.angle_deg, second.angle_deg) == (0.0, 10.0)
    assert second.samples["diffraction"][:, 0, 0].tolist() == list(range(100, 115))
    assert first.rows(FrameRole.VALIDATION).tolist() == [4, 9, 14, 19]
    assert second.of_role(FrameRole.VALIDATION)["phase"][:, 0, 0].tolist() == [-104, -109, -114]
    assert second.reference is not None
    assert second.reference.origin_px == (0.5, 1.5)


def served(stream: SectionStream, size: int) -> list[list[int]]:
    """Return the numbers of the frames of every section, as the loop would be served with them."""
    sections = []
    while True:
        numbers = []
        while (minibatch := stream.next_minibatch(size, timeout_s=0.0)) is not None:
            assert (minibatch["phase"][:, 0, 0] == -minibatch["amplitude"][:, 0, 0]).all()
            numbers += minibatch["diffraction"][:, 0, 0].tolist()
        if isinstance(stream.end, StreamEnd):
            return sections
        assert isinstance(stream.end, SectionEnd)
        sections.append(numbers)
        stream.begin_next_section()


def test_perspectives_come_in_order_as_often_as_asked_for(folder: Path) -> None:
    dataset = open_dataset(folder)
    training = [[n for n in range(20) if n % 5 != 4], [100 + n for n in range(15) if n % 5 != 4]]
    stream = SectionStream(dataset, in_sequence(dataset, passes=2, first=0, rank=0, world_size=1))
    assert served(stream, 3) == [2 * numbers for numbers in training]
    stream = SectionStream(dataset, in_sequence(dataset, passes=1, first=1, rank=0, world_size=1))
    assert served(stream, 3) == training[1:], "a resumed training begins with its perspective"
    stream = SectionStream(dataset, in_sequence(dataset, passes=2.5, first=1, rank=0, world_size=1))
    assert served(stream, 3) == [training[1] * 2 + training[1][:6]]


def test_ranks_share_every_frame(folder: Path) -> None:
    dataset = open_dataset(folder)
    per_rank = [
        served(SectionStream(dataset, in_sequence(dataset, passes=1, first=0, rank=rank, world_size=2)), 4)
        for rank in (0, 1)
    ]
    for section in (0, 1):
        numbers = sorted(chain(per_rank[0][section], per_rank[1][section]))
        assert numbers == [100 * section + n for n in range(20 - 5 * section) if n % 5 != 4]


def test_from_scratch_shuffles_everything_until_it_has_converged(folder: Path) -> None:
    dataset = open_dataset(folder)
    until = Convergence(FromScratchSettings(max_epochs=10, patience=2, least_gain=0.1))
    stream = SectionStream(dataset, everything_at_once(dataset, until=until, seed=0, rank=0, world_size=1))
    epochs = []
    for loss in (1.0, 0.8, 0.79, 0.78, 0.1):  # the third and the fourth are less than a tenth better
        numbers = []
        while (minibatch := stream.next_minibatch(8, timeout_s=0.0)) is not None:
            numbers += minibatch["diffraction"][:, 0, 0].tolist()
        if isinstance(stream.end, StreamEnd):
            break
        epochs.append(numbers)
        until.note(loss)
        stream.begin_next_section()
    assert len(epochs) == 4
    assert Counter(epochs[0]) == Counter(epochs[1])
    assert epochs[0] != epochs[1] != sorted(epochs[1])


def test_while_frames_without_ground_truth_pass_there_is_nothing_to_learn(folder: Path) -> None:
    write_perspective(samples(2, 10), folder)
    dataset = with_fewer_labels(open_dataset(folder), 2)
    assert [len(part.rows(FrameRole.TRAIN)) for part in dataset] == [16, 0, 8]
    assert [len(part.rows(FrameRole.VALIDATION)) for part in dataset] == [4, 3, 2]
    stream = SectionStream(dataset, in_sequence(dataset, passes=2, first=0, rank=1, world_size=2))
    polls = []
    while not isinstance(stream.end, StreamEnd):
        polls.append(list[int | None]())
        while stream.end is None:
            minibatch = stream.next_minibatch(5, timeout_s=0.0)
            polls[-1].append(None if minibatch is None else len(minibatch["phase"]))
        stream.begin_next_section()
    # 8, 6 and 4 frames of this rank, twice: three polls while the second perspective's pass
    assert polls == [[5, 5, 5, 1], [None, None, None], [5, 3]]
