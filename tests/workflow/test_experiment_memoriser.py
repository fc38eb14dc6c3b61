"""What only remembers, beside one that looks for the nearest frame by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from small_experiment import experiment, samples

from ptychoflow.streaming.messages import FrameRole
from ptychoflow.workflow.experiments.case import CaseFolder
from ptychoflow.workflow.experiments.ptychography.case import all_cases
from ptychoflow.workflow.experiments.ptychography.dataset import (
    open_dataset,
    write_perspective,
)
from ptychoflow.workflow.experiments.ptychography.memoriser import Nearest, memorise
from ptychoflow.workflow.experiments.ptychography.preparation import prepare


def nearest_by_hand(looked_for: np.ndarray, stored: list[np.ndarray]) -> int:
    """Return the number of the stored frame that is most alike, one by one."""
    distances = [np.sum((np.sqrt(looked_for.astype(float)) - np.sqrt(one.astype(float))) ** 2) for one in stored]
    return int(np.argmin(distances))


@pytest.mark.parametrize("method", ["memoriser", "memoriser_buffer"])
def test_what_only_remembers_gives_the_ground_truth_of_the_frame_most_alike(tmp_path: Path, method: str) -> None:
    room = 30
    settings = experiment(
        trainer={"buffer": {"capacity": room, "representatives": 4, "candidates": 4}, "ranks": 2},
        experiment={"methods": [method], "first_seed": 3},
    )
    (case,) = all_cases(settings, tmp_path)
    assert case.seed == 3
    prepare(settings, seed=3, folder=case.dataset)
    (tmp_path / case.name).mkdir()
    found = memorise(case, CaseFolder(tmp_path / case.name))
    dataset = open_dataset(case.dataset)
    seen = [(part.index, row) for part in dataset for row in part.rows(FrameRole.TRAIN)]
    kept = seen
    if method == "memoriser_buffer":
        lots = np.random.default_rng(3).random(len(seen))
        kept = [seen[number] for number in np.argsort(lots)[:room]]
        assert len(kept) == room < len(seen), "as many as the buffers of both ranks hold together"
    stored = [dataset[index].samples["diffraction"][row] for index, row in kept]
    for place, index in enumerate(found["perspectives"]):
        part = dataset[index].of_role(FrameRole.VALIDATION)
        errors = []
        for frame, amplitude, phase in zip(part["diffraction"], part["amplitude"], part["phase"], strict=True):
            like, row = kept[nearest_by_hand(frame, stored)]
            for name, truth in (("amplitude", amplitude), ("phase", phase)):
                errors.append(np.abs(dataset[like].samples[name][row].astype(float) - truth.astype(float)).mean())
        assert found["validation_matrix"][-1][place] == pytest.approx(2 * np.mean(errors), rel=1e-4)
    assert found["held_out"]["psnr_db"]["phase"] > 0
    assert found["raw_loss"] is None


def test_a_buffer_of_bytes_gives_no_number_of_frames_to_remember() -> None:
    buffer = {"capacity_bytes": 100_000}
    assert experiment(trainer={"buffer": buffer}).trainer.buffer.capacity_bytes == 100_000
    with pytest.raises(ValidationError, match=r"set trainer\.buffer\.capacity in place of"):
        experiment(trainer={"buffer": buffer}, experiment={"methods": ["memoriser_buffer"]})


def test_what_was_seen_is_remembered_exactly(tmp_path: Path) -> None:
    write_perspective(samples(0, 20), tmp_path)
    dataset = open_dataset(tmp_path)
    rows = np.arange(20)
    nearest = Nearest(dataset[0].samples["diffraction"][::-1], dataset)
    assert (nearest.place == -1).all()
    nearest.remember(np.stack([np.zeros(20, int), rows], axis=1))
    assert nearest.place[:, 1].tolist() == rows[::-1].tolist()
    assert nearest.truth()["phase"][:, 0, 0].tolist() == (-rows[::-1]).tolist()
