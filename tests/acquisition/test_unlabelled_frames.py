"""The first frames reach rank 0 before there is ground truth: which of them, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acquisition_runs import SOURCE, Outcome, Receiver, run_acquisition

from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.source_settings import RoleSettings
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.streaming.settings import NetworkSettings

SCAN = SOURCE.model_copy(update={"perspectives": 1})
ROLES = RoleSettings(validation_fraction=0.3)


def sent(rank: Receiver) -> dict[tuple[float, float], np.ndarray]:
    """Return the frames that came unlabelled, by their positions."""
    batches = [batch for perspective in rank.unlabelled.values() for batch in perspective]
    return {
        tuple(position): frame
        for batch in batches
        for position, frame in zip(batch["position_px"].tolist(), batch["diffraction"], strict=True)
    }


def learnt_from(outcome: Outcome) -> Mapping[tuple[float, float], np.ndarray[Any, Any]]:
    edge = outcome.edge
    ids = sorted(frame_id for frame_id, role in edge.roles.items() if role == FrameRole.TRAIN)
    return {tuple(edge.positions_px[frame_id].tolist()): edge.frames[frame_id] for frame_id in ids}


@pytest.mark.parametrize("limit", [512, 7])
def test_rank_0_alone_gets_the_first_frames_that_may_be_learnt_from(
    network: NetworkSettings, tmp_path: Path, limit: int
) -> None:
    settings = AcquisitionSettings(roles=ROLES, head_start_frames=limit, batch_frames=5)
    outcome = run_acquisition(network, tmp_path, source=SCAN, settings=settings, ranks=2)
    first, second = outcome.ranks
    expected = dict(list(learnt_from(outcome).items())[:limit])
    assert 7 <= len(expected) < len(outcome.edge.frames)
    got = sent(first)
    assert list(got) == list(expected), "in the order of acquisition, none twice"
    for position, frame in expected.items():
        np.testing.assert_array_equal(got[position], frame)
    np.testing.assert_array_equal(first.probes[0], outcome.edge.probes[0])
    assert not second.unlabelled
    assert not second.probes


def test_nothing_is_sent_once_there_is_ground_truth(network: NetworkSettings, tmp_path: Path) -> None:
    outcome = run_acquisition(network, tmp_path, settings=AcquisitionSettings(rate_hz=60.0), source=SOURCE)
    (rank,) = outcome.ranks
    assert 0 in rank.unlabelled
    assert 2 not in rank.probes


def test_none_are_sent_by_a_run_that_is_resumed_nor_where_none_are_asked_for(
    network: NetworkSettings, tmp_path: Path
) -> None:
    assert sent(run_acquisition(network, tmp_path, source=SCAN).ranks[0])
    for settings in (AcquisitionSettings(), AcquisitionSettings(head_start_frames=0)):
        (rank,) = run_acquisition(network, tmp_path, source=SCAN, settings=settings).ranks
        assert rank.frames
        assert not rank.unlabelled
        assert not rank.probes
