"""Frames without specimen are set aside; where that is most of them, it is said early with what to do."""

import numpy as np
import pytest
from acquisition_runs import run_acquisition

from ptychoflow.acquisition.retrieval.settings import AutoVoid, RetrievalSettings
from ptychoflow.acquisition.retrieval.void import is_void, squared_phase_rad2
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.events import WarningRaised
from ptychoflow.streaming.messages import GroundTruthSource

WEAK = SimulationSettings(
    perspectives=2, frames_per_perspective=40, frame_shape_px=(32, 32), phase_range_rad=0.1, photons_per_frame=1e4
)


def test_auto_follows_a_weak_object_and_keeps_the_usual_threshold_for_a_strong_one():
    shares = np.array([0.0, 0.01, 0.2, 0.5, 0.9, 1.0, 1.0])
    assert is_void(1e-3 * shares, AutoVoid.AUTO).tolist() == [True, True, False, False, False, False, False]
    assert is_void(1e-3 * shares, 0.02).all()
    np.testing.assert_array_equal(is_void(3.0 * shares, AutoVoid.AUTO), 3.0 * shares < 0.02)


def test_squared_phase_of_half_precision_does_not_vanish():
    assert squared_phase_rad2(np.full((1, 8, 8), 2e-4, np.float16)) == pytest.approx(4e-8, rel=0.01)


@pytest.mark.parametrize("threshold", [0.02, "auto"])
def test_a_scan_of_mostly_void_says_so_after_its_first_perspective(tmp_path, network, threshold):
    retrieval = RetrievalSettings.model_validate(
        {"source": GroundTruthSource.SIMULATED, "void_threshold": threshold, "target_shape_px": (16, 16)}
    )
    outcome = run_acquisition(network, tmp_path, source=WEAK, retrieval=retrieval)
    told = [one.text for one in outcome.events if isinstance(one, WarningRaised) and "set aside as void" in one.text]
    if threshold == "auto":
        assert not told
        assert outcome.counts.samples > 60
        return
    assert outcome.counts.samples == 0
    assert len(told) == 1
    assert told[0].startswith(
        "perspective 0: 40 of 40 frames are set aside as void (retrieval.void_threshold = 0.02 rad²)"
    )
    assert "for 50 %" in told[0]
    assert "set it lower, or to auto" in told[0]
