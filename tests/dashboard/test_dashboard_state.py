import json
import math

from speaking import Said, of, of_rank, telemetry
from telemetry_samples import acquired, mosaic, quality, ramp, scores, step

from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState, StateCursor
from ptychoflow.streaming.events import (
    AnyEvent,
    BufferReport,
    EdgeCounts,
    GroundTruthReady,
    HeldOutScores,
    MosaicKind,
    Part,
    PartState,
    PartStatus,
    RankCounts,
    ScanInfo,
    StepBreakdown,
    ValidationLoss,
    WarningRaised,
    WeightsApplied,
    WeightsKept,
    WeightsPublished,
    WeightsRejected,
)
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.state.run import SERIES_COLUMNS


def state_of(*events: Said | AnyEvent, **settings) -> DashboardState:
    state = DashboardState("night", DashboardSettings(**settings))
    for time_s, event in enumerate(events, start=100):
        state.apply(telemetry(event, float(time_s)))
    return state


def whole(state: DashboardState) -> dict:
    update, _ = state.update(StateCursor(), now_s=500.0)
    return json.loads(update.model_dump_json())


def test_the_ledger_is_summed_over_parts():
    present = whole(
        state_of(
            acquired(100),
            of_rank(0, RankCounts(40, 5, 9, 0)),
            of_rank(1, RankCounts(30, 4, 0, 1)),
            EdgeCounts(99, 7, 0, 1.0, 2.0, 3.0, 1, 2, 3, 4),
        )
    )["present"]
    frames = present["frames"]
    assert (frames["trained"], frames["validation"], frames["rejected"]) == (70, 9, 1)
    assert (frames["accounted"], frames["lost"]) == (70 + 9 + 5 + 10 + 4 + 1 + 1, 0)
    assert (frames["inferred"], frames["refreshed"]) == (99, 7)
    rates = {"frames_per_s": 1.0, "frame_to_image_p50_ms": 2.0, "frame_to_image_p99_ms": 3.0}
    assert present["inference"] == rates | {"waiting": 4, "put_off": 3, "refused": 1, "unstitched": 2}


def test_whose_last_counts_have_not_come_is_told():
    present = whole(state_of(acquired(100), EdgeCounts(99, 0, 0, 1.0, 2.0, 3.0, final=True)))["present"]
    assert (present["frames"]["lost"], present["unheard"]) == (80, ["the acquisition"])


def test_a_new_state_knows_nothing_and_says_so():
    content = whole(state_of())
    assert content["present"]["state"] == "starting"
    assert (content["present"]["parts"], content["present"]["started_s"], content["perspectives"]) == ([], None, [])
    assert set(content["series"]) == set(SERIES_COLUMNS)


def test_parts_keep_their_last_words_and_when_they_were_heard():
    words = [of(Part.EDGE, PartStatus(PartState.RUNNING, f"word {n}")) for n in range(9)]
    edge = whole(state_of(*words, EdgeCounts(1, 0, 0, 1.0, 2.0, 3.0)))["present"]["parts"][0]
    assert (edge["part"], edge["state"], edge["text"], edge["last_heard_s"]) == ("edge", "running", "word 8", 109.0)
    assert [word["text"] for word in edge["words"]] == [f"word {n}" for n in range(3, 9)]


def test_a_part_that_only_reports_figures_is_up():
    assert whole(state_of(step(1)))["present"]["parts"][0] == {
        "part": "trainer", "state": "running", "text": "", "last_heard_s": 100.0, "words": []
    }  # fmt: skip


def test_the_launcher_has_the_last_word_on_the_state_of_the_run():
    done = [of(part, PartStatus(PartState.DONE)) for part in (Part.ACQUISITION, Part.TRAINER)]
    assert whole(state_of(*done))["present"]["state"] == "done"
    assert whole(state_of(*done, of(Part.EDGE, PartStatus(PartState.FAILED, "x"))))["present"]["state"] == "failed"
    assert whole(state_of(*done, of(Part.WORKFLOW, PartStatus(PartState.RUNNING))))["present"]["state"] == "running"


def test_training_figures_and_curve():
    content = whole(state_of(step(3, loss=0.8), step(6, loss=0.4)))
    assert content["present"]["training"]["loss"] == 0.4
    series = content["series"]["training"]["columns"]
    assert (series["time_s"], series["step"], series["loss"]) == ([100.0, 101.0], [3.0, 6.0], [0.8, 0.4])
    assert (series["loss_amplitude"], series["samples_per_s"]) == ([0.2, 0.1], [100.0, 100.0])


def test_curves_stay_bounded_through_a_night():
    state = state_of(*(step(n) for n in range(5000)), series_points=64)
    assert 32 <= len(whole(state)["series"]["training"]["columns"]["loss"]) <= 64


def test_scores_join_by_perspective_and_pass():
    first, second = scores(4, MosaicKind.FIRST_PASS, 11.0), scores(4, MosaicKind.REFRESHED, 13.0, constant_db=9.5)
    content = whole(state_of(first, second, ValidationLoss(4, 10, {4: 0.25}, 0.25, 0.3)))
    (row,) = content["perspectives"]
    assert (row["perspective"], row["angle_deg"], row["frames"], row["validation_loss"]) == (4, 1.5, 400, 0.25)
    assert (row["first_pass"]["psnr_phase_db"], row["refreshed"]["psnr_amplitude_db"]) == (11.0, 16.0)
    assert row["constant"]["psnr_phase_db"] == 9.5
    refreshed = content["series"]["refreshed"]["columns"]
    assert (refreshed["psnr_phase_db"], refreshed["constant_psnr_phase_db"], refreshed["ssim_phase"]) == (
        [13.0],
        [9.5],
        [0.5],
    )
    assert content["series"]["validation"]["columns"]["constant"] == [0.3]


def test_weights_ground_truth_buffer_and_held_out():
    present = whole(state_of(
        WeightsPublished(1, 5, "aa", None, final=False), WeightsPublished(2, 9, "bb", 0.2, final=False),
        WeightsKept([1]), WeightsApplied(1), WeightsRejected(2, "digest differs"),
        GroundTruthReady(0, GroundTruthSource.PTYCHI, 4.0, 9),
        GroundTruthReady(1, GroundTruthSource.PTYCHI, 6.0, 9), of_rank(1, BufferReport(100, 30, "ucx", 0.9, 1.0, 10.0)),
        of_rank(0, BufferReport(100, 40, "ucx", 0.7, 3.0, 10.0)), HeldOutScores(1, 50, quality(12.0), quality(8.0), 1),
    ))["present"]  # fmt: skip
    assert present["weights"] == {
        "published": 2,
        "applied": 1,
        "versions": [1],
        "rejected": 1,
        "last_rejection": "version 2: digest differs",
    }
    assert present["ground_truth"] == {"perspectives": 2, "seconds": 10.0, "skipped": 0}
    assert [(rank["rank"], rank["size"]) for rank in present["buffer"]] == [(0, 40), (1, 30)]
    (held_out,) = present["held_out"]
    assert (held_out["frames"], held_out["quality"]["psnr_phase_db"], held_out["constant"]["psnr_phase_db"]) == (
        50,
        12.0,
        8.0,
    )


def test_versions_can_be_rolled_back_to_as_long_as_the_edge_keeps_them():
    state = state_of(*(WeightsApplied(version) for version in range(1, 7)), WeightsKept([6, 4, 5]))
    assert whole(state)["present"]["weights"]["versions"] == [4, 5, 6]
    state.apply(telemetry(WeightsRejected(6, "it gives no image")))
    state.apply(telemetry(WeightsKept([4, 5])))
    assert whole(state)["present"]["weights"]["versions"] == [4, 5]


def test_the_buffer_curve_adds_ranks():
    series = whole(
        state_of(
            of_rank(0, BufferReport(100, 30, "ucx", 1.0, 1.0, 9.0)),
            of_rank(1, BufferReport(100, 40, "ucx", 0.5, 1.0, 9.0)),
        )
    )["series"]
    assert series["buffer"]["columns"] == {
        "time_s": [100.0, 101.0], "size": [30.0, 70.0], "capacity": [100.0, 100.0], "hidden_fraction": [1.0, 0.75]
    }  # fmt: skip


def test_scan_and_steps():
    scan = ScanInfo(
        "a.cxi", None, 9, (128, 128), (64, 64), (9e-9, 8e-9), 8800.0, GroundTruthSource.PTYCHI, ["no probe"]
    )
    content = whole(state_of(scan, StepBreakdown(5, 1.0, 20.0, 0.5, 2.0, 6.0)))
    assert (content["present"]["scan"]["object_pixel_size_m"], content["present"]["scan"]["notes"]) == (
        [9e-9, 8e-9],
        ["no probe"],
    )
    assert content["series"]["steps"]["columns"]["train_ms"] == [20.0]


def test_repeated_warnings_are_counted_and_old_ones_forgotten():
    again = of(Part.EDGE, WarningRaised("again"))
    others = [of(Part.TRAINER, WarningRaised(f"warning {n}")) for n in range(99)]
    warnings = whole(state_of(again, *others, again))["warnings"]
    assert len(warnings) == 100
    assert warnings[-1] == {"id": 1, "time_s": 200.0, "part": "edge", "text": "again", "count": 2}
    more = whole(state_of(again, *others, of(Part.EDGE, WarningRaised("new"))))["warnings"]
    assert "again" not in {row["text"] for row in more}


def test_mosaics_are_listed_with_their_geometry():
    state = state_of()
    event, arrays = mosaic(2, MosaicKind.REFRESHED, ramp(6, 8), ramp(6, 8), origin_px=(-3.0, 4.5))
    state.apply(telemetry(event), arrays)
    assert whole(state)["present"]["mosaics"] == [{
        "perspective": 2, "kind": "refreshed", "model_version": 7, "revision": 1, "shape_px": [6, 8],
        "origin_px": [-3.0, 4.5], "pixel_size_m": [9e-9, 8e-9], "frames": 0, "residual": False,
    }]  # fmt: skip
    assert state.images(2)[MosaicKind.REFRESHED].nbytes == 2 * 6 * 8 * 4


def test_an_image_event_without_pixels_shows_nothing():
    event, _ = mosaic(2, MosaicKind.REFRESHED, ramp(), ramp())
    state = state_of(event)
    state.apply(telemetry(event), mosaic(2, MosaicKind.REFRESHED, ramp(0, 0), ramp(0, 0))[1])
    assert whole(state)["present"]["mosaics"] == []


def test_updates_carry_only_what_changed():
    state = state_of(
        scores(0, MosaicKind.FIRST_PASS, 9.0),
        scores(1, MosaicKind.FIRST_PASS, 10.0),
        step(1),
        of(Part.EDGE, WarningRaised("w")),
    )
    _, cursor = state.update(StateCursor(), now_s=0)
    state.apply(telemetry(scores(1, MosaicKind.REFRESHED, 11.0)))
    state.apply(telemetry(step(2, loss=0.25)))
    update, cursor = state.update(cursor, now_s=0)
    assert [row.perspective for row in update.perspectives] == [1]
    assert (update.series["training"].start, update.series["training"].columns["loss"]) == (1, [0.25])
    assert (update.series["first_pass"].columns["time_s"], update.warnings) == ([], [])
    again, _ = state.update(cursor, now_s=0)
    assert (again.perspectives, again.series["training"].columns["loss"]) == ([], [])


def test_what_a_viewer_was_sent_does_not_change_afterwards():
    state = state_of(WeightsPublished(1, 5, "aa", None, final=False), step(1))
    update, _ = state.update(StateCursor(), now_s=0)
    for event in (WeightsPublished(2, 9, "bb", None, final=False), step(2)):
        state.apply(telemetry(event, 900.0))
    assert (update.present.weights.published, update.present.parts[0].last_heard_s) == (1, 101.0)
    assert update.series["training"].columns["step"] == [1.0]


def test_figures_that_are_not_finite_are_null():
    state = state_of(HeldOutScores(0, 9, quality(math.nan), quality(math.inf), 1))
    text = state.update(StateCursor(), now_s=0)[0].model_dump_json()
    assert not {"NaN", "Infinity"} & set(text.replace(":", " ").replace(",", " ").split())
    assert json.loads(text)["present"]["held_out"][0]["quality"]["psnr_phase_db"] is None
