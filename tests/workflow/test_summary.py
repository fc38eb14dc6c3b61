import json
import math

import pytest
from speaking import Said, of, of_rank, telemetry

from ptychoflow.streaming.events import (
    AcquisitionCounts,
    AnyEvent,
    BufferReport,
    Channels,
    EdgeCounts,
    GroundTruthReady,
    GroundTruthSkipped,
    HeldOutScores,
    MosaicKind,
    Part,
    PartState,
    PartStatus,
    PerspectiveScores,
    Quality,
    RankCounts,
    Regime,
    RegimeChanged,
    RegimeRules,
    ScanInfo,
    StepBreakdown,
    TrainingStep,
    Unlabelled,
    ValidationLoss,
    WarningRaised,
    WeightsApplied,
    WeightsPublished,
    WeightsRejected,
)
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.summary import summarise as summarise_state


def quality(psnr_db: float, ssim: float = 0.5, correlation: float = 0.7) -> Quality:
    return Quality(Channels(psnr_db, psnr_db + 1), Channels(ssim, ssim + 0.1), Channels(correlation, correlation + 0.1))


def summarise(*timed: tuple[float, Said | AnyEvent]) -> dict:
    state = RunState()
    for time_s, event in timed:
        state.apply(telemetry(event, time_s))
    return summarise_state(state)


def counts(acquired: int = 100) -> AcquisitionCounts:
    return AcquisitionCounts(
        acquired=acquired, published=acquired, samples=80, void=5, held_out=10, excluded=4, unlabelled=1, rejected=0,
        resent_batches=0, spooled_bytes=0,
    )  # fmt: skip


def test_frames_balance_over_acquisition_ranks_and_edge():
    frames = summarise(
        (0, counts()),
        (1, of_rank(0, RankCounts(trained=40, validation=4, duplicates=9, rejected=0))),
        (2, of_rank(1, RankCounts(trained=31, validation=4, duplicates=0, rejected=1))),
        (3, EdgeCounts(100, 250, 2, 10.0, 5.0, 9.0)),
    )["frames"]
    assert frames == {
        "acquired": 100, "published": 100, "trained": 71, "validation": 8, "void": 5, "held_out": 10, "excluded": 4,
        "unlabelled": 1, "rejected": 1, "unplaced": 0, "missing": 0, "inferred": 100, "refreshed": 250, "lost": 0,
    }  # fmt: skip


def scored(kind: MosaicKind, psnr_db: float, versions: list[int]) -> PerspectiveScores:
    return PerspectiveScores(0, 0.0, 9, kind, quality(psnr_db), quality(10.0), versions)


def imaged(frames: int) -> EdgeCounts:
    return EdgeCounts(frames, 0, 2, 10.0, 5.0, 9.0)


def test_an_image_before_the_first_ground_truth_is_told_with_its_scores_when_that_came():
    truth = GroundTruthReady(0, GroundTruthSource.PTYCHI, 5.0, 9)
    weights = [
        WeightsPublished(version, step, "0" * 64, None, final=False) for version, step in enumerate((0, 0, 9), 1)
    ]
    beginning = summarise(
        (100.0, imaged(0)), (103.0, weights[0]), (104.0, imaged(1)), (106.0, imaged(9)), (107.0, weights[1]),
        (119.0, scored(MosaicKind.FIRST_PASS, 14.0, [1])), (120.0, truth), (121.0, weights[2]),
        (122.0, scored(MosaicKind.REFRESHED, 16.0, [1, 2])), (130.0, scored(MosaicKind.REFRESHED, 20.0, [3])),
        (131.0, scored(MosaicKind.REFRESHED, 18.0, [2])), (140.0, truth),
    )["beginning"]  # fmt: skip
    assert (beginning["first_image_s"], beginning["first_ground_truth_s"]) == (4.0, 20.0)
    assert beginning["scores"]["psnr_db"] == {"amplitude": 16.0, "phase": 17.0}
    assert beginning["constant"]["psnr_db"] == {"amplitude": 10.0, "phase": 11.0}


def test_an_image_that_comes_after_ground_truth_has_no_scores_of_the_beginning():
    truth = GroundTruthReady(0, GroundTruthSource.PTYCHI, 5.0, 9)
    learnt = WeightsPublished(1, 5, "0" * 64, None, final=False)
    events = (0.0, truth), (3.0, learnt), (4.0, imaged(1)), (5.0, scored(MosaicKind.REFRESHED, 16.0, [1]))
    beginning = summarise(*events)["beginning"]
    assert beginning == {"first_image_s": 4.0, "first_ground_truth_s": 0.0, "scores": None, "constant": None}
    untaught = WeightsPublished(1, 0, "0" * 64, None, final=False)
    # of weights that a run began with, and ground truth that was recorded, or of which nothing was heard
    for said in (events[0], (0.0, imaged(0))):
        beginning = summarise(said, (3.0, untaught), *events[2:])["beginning"]
        assert (beginning["scores"], beginning["constant"]) == (None, None)


def test_a_lost_frame_is_found():
    frames = summarise((0, counts()), (1, of_rank(0, RankCounts(71, 7, 0, 0))))["frames"]
    assert frames["lost"] == 100 - 71 - 7 - 5 - 10 - 4 - 1 == 2


def test_held_out_scores_of_one_region_are_kept_exactly():
    early = HeldOutScores(0, 200, quality(10.0), quality(9.0), model_version=3)
    final = HeldOutScores(0, 200, quality(13.3), quality(9.2, 0.2, 0.0), model_version=8)
    assert summarise((0, early), (1, final))["held_out"] == {
        "perspectives": [0],
        "frames": 200,
        "model_version": 8,
        "psnr_db": {"amplitude": 13.3, "phase": 14.3},
        "ssim": {"amplitude": 0.5, "phase": 0.6},
        "correlation": {"amplitude": 0.7, "phase": 0.7 + 0.1},
        "constant": {
            "psnr_db": {"amplitude": 9.2, "phase": 10.2},
            "ssim": {"amplitude": 0.2, "phase": 0.2 + 0.1},
            "correlation": {"amplitude": 0.0, "phase": 0.1},
        },
        "memoriser": None,
    }


def test_held_out_regions_of_several_perspectives_are_averaged():
    held_out = summarise(
        (0, HeldOutScores(1, 20, quality(14.0), quality(8.0), 5)),
        (1, HeldOutScores(0, 10, quality(10.0), quality(9.0), 5, quality(9.5))),
    )["held_out"]
    assert (held_out["perspectives"], held_out["frames"]) == ([0, 1], 30)
    assert held_out["psnr_db"] == {"amplitude": 12.0, "phase": 13.0}
    assert held_out["constant"]["psnr_db"]["amplitude"] == 8.5
    assert held_out["memoriser"]["psnr_db"]["amplitude"] == 9.5


def test_perspectives_join_both_passes_and_the_ground_truth():
    first = PerspectiveScores(0, 12.5, 400, MosaicKind.FIRST_PASS, quality(8.0), quality(7.0), [1, 2])
    refreshed = PerspectiveScores(0, 12.5, 400, MosaicKind.REFRESHED, quality(11.0), quality(7.5), [4])
    truth = [GroundTruthReady(index, GroundTruthSource.PTYCHI, 2.5, 400) for index in (0, 1)]
    rows = summarise((0, truth[0]), (1, first), (2, refreshed), (3, truth[1]))["perspectives"]
    assert [row["index"] for row in rows] == [0, 1]
    assert (rows[0]["angle_deg"], rows[0]["frames"], rows[0]["ground_truth"]) == (12.5, 400, "ptychi")
    assert rows[0]["first_pass"]["model_versions"] == [1, 2]
    assert rows[0]["first_pass"]["psnr_db"] == {"amplitude": 8.0, "phase": 9.0}
    assert rows[0]["refreshed"]["psnr_db"] == {"amplitude": 11.0, "phase": 12.0}
    assert rows[0]["constant"]["psnr_db"]["amplitude"] == 7.5, "the constant of the newest pass"
    assert (rows[1]["first_pass"], rows[1]["refreshed"], rows[1]["constant"]) == (None, None, None)


def test_validation_loss_keeps_every_evaluation_in_order():
    events = [ValidationLoss(0, 10, {0: 0.3}, 0.3, 0.2), ValidationLoss(1, 20, {0: 0.2, 1: 0.1}, 0.15, 0.19)]
    assert summarise(*enumerate(events))["validation_loss"] == [
        {"after_perspective": 0, "step": 10, "mean_over_seen": 0.3, "constant": 0.2},
        {"after_perspective": 1, "step": 20, "mean_over_seen": 0.15, "constant": 0.19},
    ]


def test_weights_are_counted_by_version():
    published = WeightsPublished(1, 10, "aa", None, final=False), WeightsPublished(2, 20, "bb", 0.1, final=True)
    applied = WeightsApplied(1), WeightsApplied(1), WeightsApplied(2)
    summary = summarise(*enumerate([*published, *applied, WeightsRejected(3, "digest")]))
    assert summary["weights"] == {"published": 2, "applied": 2, "rejected": 1}


def test_regime_sums_the_seconds_of_ground_truth_once_per_perspective():
    truth = [GroundTruthReady(index, GroundTruthSource.PTYCHI, 2.5, 400) for index in (0, 1, 1)]
    assert summarise(*enumerate(truth))["regime"] == {
        "name": "learning", "switches": 0, "ground_truth_seconds": 5.0, "ground_truth_seconds_saved": 0.0,
        "perspectives_skipped": [], "thresholds": None, "changes": [],
    }  # fmt: skip


def test_what_monitoring_saved_is_the_median_time_of_the_perspectives_that_did_without():
    seconds = {0: 9.0, 1: 2.0, 2: 4.0, 5: 2.5, 6: 3.0}
    truth = [GroundTruthReady(index, GroundTruthSource.PTYCHI, one, 400) for index, one in seconds.items()]
    skipped = [GroundTruthSkipped(index) for index in (3, 4, 4)]
    changes = RegimeChanged(Regime.MONITORING, 3, "good"), RegimeChanged(Regime.LEARNING, 6, "drift")
    resumed = RegimeChanged(Regime.LEARNING, 7, "the run was resumed")
    summary = summarise(*enumerate([RegimeRules(20.0, None), *truth, *skipped, *changes, resumed]))
    assert summary["regime"] == {
        "name": "learning", "switches": 2, "ground_truth_seconds": 20.5, "ground_truth_seconds_saved": 6.0,
        "perspectives_skipped": [3, 4], "thresholds": {"psnr_db": 20.0, "ssim": None},
        "changes": [
            {"regime": "monitoring", "perspective": 3, "reason": "good", "acquired": 0},
            {"regime": "learning", "perspective": 6, "reason": "drift", "acquired": 0},
        ],
    }  # fmt: skip
    assert summarise((0, changes[0]))["regime"]["name"] == "monitoring"


def test_unlabelled_frames_are_told_by_their_reason():
    because = {Unlabelled.MONITORING: 90, Unlabelled.STOPPED: 3}
    event = AcquisitionCounts(100, 100, 7, 0, 0, 0, 93, 0, 0, 0, because)
    summary = summarise((0, event))
    assert summary["frames"]["unlabelled"] == 93
    assert summary["unlabelled_because"] == {"monitoring": 90, "stopped": 3}


def test_buffer_adds_sizes_and_averages_times_over_ranks():
    reports = (
        of_rank(0, BufferReport(4000, 1500, "ucx", 0.9, 1.0, 10.0)),
        of_rank(1, BufferReport(4000, 1400, "ucx", 0.8, 3.0, 14.0)),
    )
    buffer = summarise(*enumerate(reports))["buffer"]
    assert buffer.pop("hidden_fraction") == pytest.approx(0.85)
    assert buffer == {"capacity": 4000, "size": 2900, "transport": "ucx", "waited_ms": 2.0, "background_ms": 12.0}


def test_throughput_is_the_mean_rate_while_counts_rose():
    summary = summarise(
        (10.0, EdgeCounts(100, 0, 0, 55.0, 3.0, 9.0)),
        (14.0, EdgeCounts(500, 0, 0, 90.0, 4.0, 8.0)),
        (30.0, EdgeCounts(500, 200, 0, 0.0, 4.5, 8.5)),
        (10.0, TrainingStep(1, 1.0, 0.5, 0.5, 1e-3, 16, 0, 30.0)),
        (20.0, TrainingStep(9, 0.5, 0.2, 0.3, 1e-3, 144, 192, 40.0)),
    )
    assert summary["throughput"] == {
        "frames_per_s": 100.0,
        "samples_trained_per_s": 32.0,
        "frame_to_image_ms": {"p50": 4.5, "p99": 8.5},
    }
    assert summary["seconds"] == 20.0
    assert summary["training"] == {
        "steps": 9,
        "stream_samples": 144,
        "rehearsed_samples": 192,
        "resumed_from_steps": [],
        "step_ms": None,
    }


def test_a_single_report_gives_the_rate_that_the_part_measured():
    throughput = summarise((1, EdgeCounts(9, 0, 0, 55.0, 3.0, 9.0)))["throughput"]
    assert (throughput["frames_per_s"], throughput["samples_trained_per_s"]) == (55.0, None)


def test_step_breakdown_is_the_mean_over_reports():
    step = TrainingStep(9, 0.5, 0.2, 0.3, 1e-3, 144, 192, 40.0)
    breakdown = StepBreakdown(4, 1.0, 20.0, 0.5, 2.0, 8.0), StepBreakdown(9, 3.0, 30.0, 1.5, 3.0, 10.0)
    assert summarise((0, step), (1, breakdown[0]), (2, breakdown[1]))["training"]["step_ms"] == {
        "load_ms": 2.0, "train_ms": 25.0, "buffer_wait_ms": 1.0, "populate_ms": 2.5, "augment_ms": 9.0,
    }  # fmt: skip


def test_warnings_are_counted_and_failures_named_once():
    warning = of(Part.EDGE, WarningRaised("no reference for perspective 3"))
    failed = of(Part.TRAINER, PartStatus(PartState.FAILED, "rank 1 ran out of memory"))
    summary = summarise(
        (0, warning), (1, warning), (2, failed), (3, failed), (4, of(Part.EDGE, PartStatus(PartState.DONE)))
    )
    assert summary["warnings"] == [{"part": "edge", "text": "no reference for perspective 3", "count": 2}]
    assert summary["failures"] == [{"part": "trainer", "text": "rank 1 ran out of memory"}]


def test_scan_is_reported():
    scan = ScanInfo(
        "siemens_star.cxi", 1, 880, (128, 128), (64, 64), (8e-9, 9e-9), 8800.0, GroundTruthSource.PTYCHI, ["x"]
    )
    assert summarise((0, scan))["scan"] == {
        "source": "siemens_star.cxi", "perspectives": 1, "frames_expected": 880, "frame_shape_px": [128, 128],
        "target_shape_px": [64, 64], "object_pixel_size_m": [8e-9, 9e-9], "energy_eV": 8800.0,
        "ground_truth": "ptychi", "notes": ["x"],
    }  # fmt: skip


def test_the_summary_of_nothing_is_valid_json_with_every_section():
    summary = json.loads(json.dumps(summarise_state(RunState()), allow_nan=False))
    assert summary["frames"]["lost"] == 0
    assert (summary["held_out"], summary["buffer"], summary["perspectives"], summary["seconds"]) == (
        None,
        None,
        [],
        0.0,
    )


def test_figures_that_are_not_finite_become_null():
    summary = summarise((0, HeldOutScores(0, 9, quality(math.inf), quality(math.nan), 1)))
    assert summary["held_out"]["psnr_db"] == {"amplitude": None, "phase": None}
    json.dumps(summary, allow_nan=False)
