"""The verdict on a run and its result in words."""

import re
from pathlib import Path
from typing import Any

import pytest
from speaking import of_rank, telemetry

from ptychoflow.streaming.durable_file import UNFINISHED_SUFFIX
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    AcquisitionCounts,
    Channels,
    EdgeCounts,
    HeldOutScores,
    Quality,
    RankCounts,
    Unlabelled,
)
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.results import complaint, headline, write_results
from ptychoflow.workflow.summary import summarise as summarise_state


def quality(psnr_db: float, correlation: float) -> Quality:
    return Quality(Channels(0.0, psnr_db), Channels(0.5, 0.5), Channels(0.0, correlation))


def summary(
    *, acquired: int = 10, trained: int = 8, inferred: int = 10, scored: bool = True, final: bool = True
) -> dict[str, Any]:
    state = RunState()
    counts = AcquisitionCounts(acquired, acquired, 8, 2, 0, 0, 0, 0, 0, 0, final=True)
    trainer = of_rank(0, RankCounts(trained, 0, 0, 0, final=final))
    events = [counts, trainer, EdgeCounts(inferred, 0, 0, 1.0, 1.0, 1.0, final=final)]
    if scored:
        events.append(HeldOutScores(0, 5, quality(21.34, 0.784), quality(17.2, float("nan")), 3))
    for event in events:
        state.apply(telemetry(event, 1.0))
    return summarise_state(state)


def test_a_balanced_ledger_has_no_complaint() -> None:
    assert complaint(summary()) is None


def test_a_frame_that_was_refused_for_its_counts_needs_no_image() -> None:
    state = RunState()
    counts = AcquisitionCounts(10, 9, 7, 2, 0, 0, 0, 1, 0, 0)
    for event in (counts, of_rank(0, RankCounts(7, 0, 0, 0)), EdgeCounts(9, 0, 0, 1.0, 1.0, 1.0)):
        state.apply(telemetry(event, 1.0))
    assert complaint(summarise_state(state)) is None


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"trained": 5}, "3 of 10 frames are unaccounted for"),
        ({"trained": 9}, "-1 of 10 frames"),
        ({"inferred": 9}, "9 of 10 published frames were imaged"),
        ({"acquired": 0, "trained": 0, "inferred": 0}, "no frame was acquired"),
    ],
)
def test_what_does_not_balance_is_told(case: dict[str, int], said: str) -> None:
    assert said in (complaint(summary(**case)) or "")


@pytest.mark.parametrize("case", [{"trained": 5}, {"inferred": 9}])
def test_frames_of_whoever_gave_no_last_count_are_not_known_to_be_lost(case: dict[str, int]) -> None:
    said = "not known, because the edge and rank 0 of the trainer ended, or was cut off, without a last count"
    assert said in (complaint(summary(**case, final=False)) or "")
    assert "not known" not in (complaint(summary(**case)) or "")
    assert headline(summary(trained=5, final=False)).endswith("3 lost or not known of")


def test_a_ledger_that_balances_without_last_counts_has_no_complaint() -> None:
    assert complaint(summary(final=False)) is None


@pytest.mark.parametrize(
    ("counts", "because", "said"),
    [
        ({"void": 10}, {}, "none of the 10 frames could be learnt from: 10 void"),
        ({"unlabelled": 10}, {Unlabelled.RETRIEVAL_FAILED: 10}, "10 without ground truth because phase retrieval"),
        ({"rejected": 10}, {}, "0 void, 10 refused"),
        ({"unlabelled": 4, "samples": 6}, {Unlabelled.WORKER_LOST: 4}, "4 frames are .* `ptychoflow resume` tries it"),
        ({"unlabelled": 4, "samples": 6}, {Unlabelled.RETRIEVAL_FAILED: 4}, None),
        ({"held_out": 10}, {}, None),
        ({"void": 4, "unlabelled": 6}, {Unlabelled.MONITORING: 6}, None),
    ],
)
def test_a_run_that_could_not_learn_what_it_should_has_not_ended_well(
    counts: dict[str, int], because: dict[Unlabelled, int], said: str | None
) -> None:
    zeros = dict.fromkeys(("samples", "void", "held_out", "excluded", "unlabelled", "rejected"), 0)
    rest = {"acquired": 10, "published": 10, "resent_batches": 0, "spooled_bytes": 0, "unlabelled_because": because}
    acquisition = AcquisitionCounts(**{**zeros, **counts, **rest})
    state = RunState()
    trained = of_rank(0, RankCounts(counts.get("samples", 0), 0, 0, 0))
    for event in (acquisition, trained, EdgeCounts(10, 0, 0, 1.0, 1.0, 1.0)):
        state.apply(telemetry(event, 1.0))
    found = complaint(summarise_state(state))
    assert found is None if said is None else re.search(said, found or "")


def test_the_headline_sets_the_result_beside_the_constant_prediction() -> None:
    assert headline(summary()) == (
        "held-out phase: correlation 0.78, PSNR 21.3 dB (constant prediction 17.2 dB); "
        "10 frames acquired, 10 imaged, 0 lost"
    )


def test_a_run_without_scores_says_so() -> None:
    assert headline(summary(scored=False)).startswith("no image was scored; ")


def test_a_full_disk_at_the_end_is_told_in_a_line_and_leaves_the_summary_that_was_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.summary.write_text("before")
    folder.summary.with_name(folder.summary.name + UNFINISHED_SUFFIX).symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*summary\.json: No space left on device"):
        write_results(RunState(), folder)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
