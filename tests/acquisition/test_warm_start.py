"""Phase retrieval that starts from what the edge has made of a perspective."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from acquisition_runs import SOURCE, run_acquisition

from ptychoflow.acquisition.ptychography.warm_start import object_to_start_from
from ptychoflow.acquisition.retrieval import worker
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.settings import AcquisitionSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import GroundTruthReady
from ptychoflow.streaming.messages import FirstPassImage
from ptychoflow.streaming.settings import NetworkSettings

EPOCHS = 12
WARM = RetrievalSettings(epochs=EPOCHS, target_shape_px=(16, 16), warm_start=True)


def test_it_takes_fewer_epochs_where_the_edge_was_right_and_all_of_them_where_it_said_nothing(
    network: NetworkSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STARTS_WITHIN_S", 1.0)
    second = list(open_scan(SOURCE))[1].ground_truth
    assert second is not None
    origin_px = (round(second.origin_px[0]), round(second.origin_px[1]))
    truth = {
        "amplitude": np.abs(second.values).astype(np.float16),
        "phase": np.angle(second.values).astype(np.float16),
    }
    images = {
        1: (FirstPassImage(1, origin_px), truth),
        2: (FirstPassImage(2, origin_px), {"amplitude": truth["amplitude"][0]}),
    }
    outcome = run_acquisition(network, tmp_path, retrieval=WARM, images=images)
    epochs = {event.perspective: event.epochs for event in outcome.events if isinstance(event, GroundTruthReady)}
    assert epochs[0] == epochs[2] == EPOCHS
    assert epochs[1] < EPOCHS
    assert [start.wants_images for start in outcome.edge.started] == [True]
    assert sorted(outcome.edge.references) == [0, 1, 2]


def test_where_the_edge_saw_nothing_is_void() -> None:
    amplitude = np.array([[2.0, np.nan]], np.float16)
    phase = np.array([[0.5, np.nan]], np.float16)
    found = object_to_start_from(FirstPassImage(3, (-4, 7)), {"amplitude": amplitude, "phase": phase})
    assert found is not None
    assert found.origin_px == (-4.0, 7.0)
    np.testing.assert_allclose(found.values, [[2 * np.exp(0.5j), 1]], rtol=1e-3)
    for wrong in ({}, {"amplitude": amplitude}, {"amplitude": amplitude, "phase": phase[0]}):
        assert object_to_start_from(FirstPassImage(3, (0, 0)), wrong) is None
    integers = {"amplitude": amplitude, "phase": np.zeros((1, 2), np.int32)}
    assert object_to_start_from(FirstPassImage(3, (0, 0)), integers) is None


def test_it_needs_an_edge(network: NetworkSettings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="warm_start needs an edge"):
        run_acquisition(network, tmp_path, settings=AcquisitionSettings(edge=False), retrieval=WARM)
