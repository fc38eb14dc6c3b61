"""The progress of a run in one line."""

import io
import logging

import pytest
from rich.console import Console
from speaking import of, of_rank, telemetry

from ptychoflow.streaming.events import (
    AcquisitionCounts,
    Channels,
    EdgeCounts,
    MosaicKind,
    Part,
    PartState,
    PartStatus,
    PerspectiveScores,
    Quality,
    RankCounts,
    ScanInfo,
    TrainingStep,
    WarningRaised,
)
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.progress import ProgressDisplay, describe, log_for_people

FLAT = Channels(0.0, 0.0)


def state_after_some_events() -> RunState:
    state = RunState()
    scan = ScanInfo("x", 2, 80, (64, 64), (64, 64), (1e-8, 1e-8), 8800.0, GroundTruthSource.SIMULATED, [])
    learned, constant = Quality(Channels(1, 20.04), FLAT, FLAT), Quality(Channels(1, 15), FLAT, FLAT)
    scores = PerspectiveScores(0, 0.0, 40, MosaicKind.FIRST_PASS, learned, constant, [1])
    for event in (
        scan,
        AcquisitionCounts(40, 40, 30, 0, 0, 0, 0, 0, 0, 0),
        of_rank(0, RankCounts(12, 0, 0, 0)),
        of_rank(1, RankCounts(11, 0, 0, 0)),
        EdgeCounts(38, 0, 0, 50.0, 1.0, 2.0),
        TrainingStep(9, 0.1234, 0.1, 0.0234, 1e-3, 23, 0, 210.4),
        scores,
    ):
        state.apply(telemetry(event, 0.0))
    return state


def test_the_line_tells_frames_training_and_quality() -> None:
    state = state_after_some_events()
    assert (state.ledger.counts().inferred, state.frames_expected) == (38, 80)
    assert describe(state) == (
        "acquired 40, imaged 38, trained on 23, step 9, loss 0.123, 210 samples/s, phase PSNR 20.0 dB (constant 15.0)"
    )


def test_the_line_says_what_the_acquisition_waits_for_until_frames_come() -> None:
    state = RunState()
    state.apply(telemetry(of(Part.ACQUISITION, PartStatus(PartState.RUNNING, "waiting for the first frames of panda"))))
    assert describe(state) == "acquired 0, imaged 0, trained on 0, waiting for the first frames of panda"
    state.apply(telemetry(AcquisitionCounts(1, 1, 0, 0, 0, 0, 0, 0, 0, 0)))
    assert describe(state) == "acquired 1, imaged 0, trained on 0, waiting for the first ground truth"


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (210.4, "210 samples/s"),
        (9.96, "10.0 samples/s"),
        (0.5, "0.5 samples/s"),
        (0.04, "a sample in 25 s"),
        (0.0, "0.0 samples/s"),
    ],
)
def test_slow_training_is_not_told_as_none(rate: float, said: str) -> None:
    state = RunState()
    state.apply(telemetry(TrainingStep(9, 0.1, 0.1, 0.0, 1e-3, 23, 0, rate), 0.0))
    assert describe(state).endswith(f", {said}")


def test_a_terminal_shows_a_bar_and_the_line() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    with ProgressDisplay(state_after_some_events(), console):
        pass
    assert "38/80" in screen.getvalue()
    assert "loss 0.123" in screen.getvalue()


def test_brackets_in_what_is_waited_for_are_shown_as_they_are() -> None:
    state, screen = RunState(), io.StringIO()
    state.apply(telemetry(of(Part.ACQUISITION, PartStatus(PartState.RUNNING, "waiting for [/scan]"))))
    with ProgressDisplay(state, Console(file=screen, force_terminal=True, width=200)):
        pass
    assert "waiting for [/scan]" in screen.getvalue()


def test_no_bar_is_drawn_into_a_file() -> None:
    screen = io.StringIO()
    with ProgressDisplay(state_after_some_events(), Console(file=screen, force_terminal=False)) as display:
        display.refresh()
    assert screen.getvalue() == ""


def test_a_parts_warning_reaches_the_user(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_for_people(telemetry(of(Part.EDGE, WarningRaised("the probe was estimated")), 0.0))
    assert "edge: the probe was estimated" in caplog.text


def test_the_notes_on_the_scan_reach_the_user_before_the_work(caplog: pytest.LogCaptureFixture) -> None:
    notes = ["Read as CXI", "Frames do not fit: --set source.preprocess.flip_x=true"]
    truth = GroundTruthSource.PTYCHI
    info = ScanInfo("scan.cxi", 1, 80, (64, 64), (64, 64), (8e-9, 8e-9), 8800.0, truth, notes)
    with caplog.at_level(logging.INFO):
        log_for_people(telemetry(info, 0.0))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "scan: Read as CXI"),
        ("WARNING", "scan: Frames do not fit: --set source.preprocess.flip_x=true"),
    ]
