"""What of a source is refused before a run starts."""

from pathlib import Path

import pytest

from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import load_config, option_table
from ptychoflow.workflow.launching.source_check import check_source

RECORDED = ("retrieval.source=recorded",)
LIVE = (
    "source.kind=live",
    "source.frames.kind=dectris-v2",
    "source.frames.host=127.0.0.1",
    "source.positions.kind=position-sender",
    "source.join.first_frame=0",
    "source.join.first_sample=0",
    "source.join.samples_per_frame=1",
)


def record(path: Path, perspective: Perspective) -> None:
    with Recorder(path) as recorder:
        recorder.start_perspective(perspective)
        for batch in perspective.batches(64):
            recorder.append(batch)


@pytest.fixture
def perspective() -> Perspective:
    settings = SimulationSettings(perspectives=1, frames_per_perspective=49, frame_shape_px=(32, 32))
    return SimulatedScan(settings).perspective(0)


def test_ground_truth_of_a_recording_that_has_none_is_refused(tmp_path: Path, perspective: Perspective) -> None:
    with_truth, without = tmp_path / "with.h5", tmp_path / "without.h5"
    record(with_truth, perspective)
    perspective.ground_truth = None
    record(without, perspective)
    for path in (with_truth, without):
        replayed = option_table(source__kind="replay", source__path=str(path))
        check_source(load_config(options=replayed))
        config = load_config(assignments=RECORDED, options=replayed)
        if path == with_truth:
            check_source(config)
        else:
            with pytest.raises(UserError, match="is recorded, but the scan brings no ground truth"):
                check_source(config)


def test_ground_truth_of_a_detector_is_refused() -> None:
    check_source(load_config(assignments=LIVE))
    with pytest.raises(UserError, match="a detector brings no ground truth"):
        check_source(load_config(assignments=[*LIVE, *RECORDED]))
