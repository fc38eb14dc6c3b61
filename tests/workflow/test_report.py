import base64
import json
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from speaking import Said, of, of_rank, telemetry

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import (
    AcquisitionCounts,
    AnyEvent,
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
    ResidualCalibrated,
    ResidualScores,
    ScanInfo,
    StepBreakdown,
    TrainingStep,
    Unlabelled,
    ValidationLoss,
    WarningRaised,
)
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.monitoring_spans import monitoring_spans
from ptychoflow.workflow.report import judge, write_report
from ptychoflow.workflow.summary import summarise as summarise_state


class Page(HTMLParser):
    """What a reader sees of a report, and what it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.comments: list[str] = []
        self.figures: list[str] = []
        self._texts: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.figures += [value for name, value in attrs if tag == "svg" and name == "aria-label" and value]
        self.references += [value for name, value in attrs if name in ("src", "href", "data") and value]

    def handle_data(self, data):
        self._texts.append(data)

    def handle_comment(self, data):
        self.comments.append(data.strip())


def quality(psnr_db: float, correlation: float = 0.7) -> Quality:
    return Quality(Channels(psnr_db + 5, psnr_db), Channels(0.6, 0.5), Channels(0.1, correlation))


def held_out(gain_db: float, perspective: int = 0, *, memoriser_db: float | None = None) -> HeldOutScores:
    remembered = None if memoriser_db is None else quality(memoriser_db)
    return HeldOutScores(perspective, 170, quality(10.0 + gain_db), quality(10.0), 4, remembered)


def scores(perspective: int, kind: MosaicKind, psnr_db: float) -> PerspectiveScores:
    return PerspectiveScores(perspective, 7.5 * perspective, 400, kind, quality(psnr_db), quality(9.0), [1])


def counts(acquired: int) -> AcquisitionCounts:
    return AcquisitionCounts(acquired, acquired, 90, 3, 2, 0, 0, 0, 0, 0)


def run_folder(folder: Path, events: Iterable[Said | AnyEvent]) -> Path:
    state = RunState()
    lines = []
    for time_s, event in enumerate(events):
        state.apply(telemetry(event, float(time_s)))
        lines.append(msgspec.json.encode(telemetry(event, float(time_s))))
    (folder / "telemetry.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "summary.json").write_text(json.dumps(summarise_state(state)))
    (folder / "images").mkdir(exist_ok=True)
    return folder


def page_of(folder: Path, *events: Said | AnyEvent) -> Page:
    return Page(write_report(RunFolder(run_folder(folder, events))).read_text())


def summary_of(*events: Said | AnyEvent) -> dict:
    state = RunState()
    for event in events:
        state.apply(telemetry(event, 0.0))
    return summarise_state(state)


@pytest.mark.parametrize(
    ("gain_db", "grade", "words"),
    [
        (4.04, "good", "the network beats the constant prediction by 4.0 dB in phase and 4.0 dB in amplitude"),
        (0.3, "slight", "is only slightly better than the constant prediction by 0.3 dB"),
        (0.0, "bad", "no better than the constant prediction: 0.0 dB in phase. It has learned nothing"),
        (-1.5, "bad", "no better than the constant prediction: −1.5 dB"),
        (float("nan"), "unknown", "could not be scored"),
    ],
)
def test_the_verdict_compares_held_out_frames_with_the_constant_prediction(gain_db, grade, words):
    verdict = judge(summary_of(held_out(gain_db), scores(0, MosaicKind.REFRESHED, 30.0)))
    assert verdict.grade == grade
    assert words in verdict.text
    assert verdict.text.startswith("On the held-out frames")


@pytest.mark.parametrize(
    ("memoriser_db", "grade", "words"),
    [
        (
            12.5,
            "good",
            "by 4.0 dB in phase and 4.0 dB in amplitude; phase correlation 0.70. It is 1.5 dB ahead of what",
        ),
        (14.0, "slight", "But the memoriser, a list of the frames with their ground truth, does as well."),
        (15.5, "slight", "does better: the network is 1.5 dB behind it in phase."),
        (None, "good", "phase correlation 0.70."),
    ],
)
def test_a_network_that_only_remembers_is_found_out(memoriser_db, grade, words):
    verdict = judge(summary_of(held_out(4.0, memoriser_db=memoriser_db)))
    assert (verdict.grade, words in verdict.text) == (grade, True)
    assert judge(summary_of(held_out(-1.0, memoriser_db=12.0))).grade == "bad"


def test_without_held_out_frames_the_last_scored_perspective_counts_and_it_is_said():
    verdict = judge(summary_of(scores(0, MosaicKind.REFRESHED, 9.1), scores(1, MosaicKind.FIRST_PASS, 12.0)))
    assert verdict.grade == "good"
    assert verdict.text.startswith("On perspective 1 (nothing was held out")
    assert "by 3.0 dB in phase" in verdict.text


def test_nothing_scored_is_said():
    assert judge(summary_of()).grade == "unknown"


def test_the_report_tells_the_whole_run(tmp_path):
    scan = ScanInfo(
        "star.cxi", 1, 98, (128, 128), (64, 64), (9e-9, 9e-9), 8800.0, GroundTruthSource.PTYCHI, ["probe was estimated"]
    )
    page = page_of(
        tmp_path, scan, counts(98), of_rank(0, RankCounts(83, 10, 0, 0)), held_out(4.0, memoriser_db=12.0),
        scores(0, MosaicKind.REFRESHED, 13.0),
        TrainingStep(1, 0.5, 0.2, 0.3, 1e-3, 16, 24, 50.0), TrainingStep(9, 0.2, 0.1, 0.1, 1e-3, 160, 240, 50.0),
        StepBreakdown(9, 1.25, 20.5, 0.5, 2.5, 8.0), ValidationLoss(0, 9, {0: 0.15}, 0.15, 0.2),
        of(Part.EDGE, WarningRaised("clock differs by 3 s")),
    )  # fmt: skip
    for words in (
        "star.cxi: 98 frames of 128 × 128 pixels in 1 perspective,",
        "170 frames of perspective 0 that neither training nor validation saw",
        "Network 14.00 0.500 0.70 19.00 0.600 0.10",
        "Constant 10.00 0.500 0.70 15.00 0.600 0.10",
        "Memoriser 12.00 0.500 0.70 17.00 0.600 0.10",
        "Refreshed 13.00",
        "the network is 25 % below it",
        "Train 20.5",
        "Trained on 83 Kept for validation 10 Held out 2",
        "Lost 0 Acquired 98",
        "probe was estimated",
        "Edge: clock differs by 3 s",
    ):
        assert words in page.text, words
    assert {"training", "validation, perspectives so far", "constant prediction"} <= set(page.comments)


@pytest.mark.parametrize(
    ("perspectives", "named"),
    [([3], "perspective 3"), ([3, 7], "perspectives 3 and 7"), (range(2, 22), "20 perspectives from 2 to 21")],
)
def test_it_is_said_which_perspectives_frames_were_held_out_of(tmp_path, perspectives, named):
    page = page_of(tmp_path, *(held_out(4.0, perspective=index) for index in perspectives))
    assert f"{170 * len(perspectives):,} frames of {named} that neither".replace(",", " ") in page.text
    assert ("scores are means over these perspectives" in page.text) == (len(perspectives) > 1)


def test_a_lost_frame_and_a_failed_part_come_first(tmp_path):
    failed = of(Part.TRAINER, PartStatus(PartState.FAILED, "rank 1 ran out of memory"))
    page = page_of(tmp_path, counts(98), of_rank(0, RankCounts(82, 10, 0, 0)), failed)
    assert "The trainer failed: rank 1 ran out of memory" in page.text
    assert "does not balance: 1 of 98 frames are unaccounted for; whether they are lost is not known" in page.text
    assert "Not known of 1 Acquired 98" in page.text


def test_the_report_needs_nothing_else_and_embeds_the_pictures_as_they_are(tmp_path):
    run_folder(tmp_path, [held_out(4.0, perspective=0)])
    for index in range(9):
        for kind in ("first_pass", "refreshed", "reference", "difference"):
            for channel in ("amplitude", "phase"):
                content = f"{index} {kind} {channel}".encode()
                (tmp_path / "images" / f"perspective_{index:04d}_{kind}_{channel}.png").write_bytes(content)
    page = Page(write_report(RunFolder(tmp_path)).read_text())
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in page.references)
    assert not {"script", "link", "iframe"} & set(page.tags)
    pictures = [
        base64.b64decode(reference.split(",")[1]).decode() for reference in page.references if reference[0] == "d"
    ]
    assert pictures[:4] == ["0 refreshed phase", "0 reference phase", "0 difference phase", "0 refreshed amplitude"]
    assert list(dict.fromkeys(picture[0] for picture in pictures)) == ["0", "8", "4"], "held-out, last, middle"
    assert len(pictures) == 3 * 8


def test_quality_over_perspectives_is_drawn_from_two_on(tmp_path):
    one = page_of(tmp_path, scores(0, MosaicKind.FIRST_PASS, 12.0))
    two = page_of(tmp_path, scores(0, MosaicKind.FIRST_PASS, 12.0), scores(1, MosaicKind.FIRST_PASS, 13.0))
    assert "phase PSNR in dB" not in one.comments
    assert {"phase PSNR in dB", "phase SSIM"} <= set(two.comments)


def test_the_regimes_are_drawn_and_told(tmp_path):
    truth = [GroundTruthReady(index, GroundTruthSource.PTYCHI, 2.0, 400) for index in (0, 1, 4)]
    firsts = [scores(index, MosaicKind.FIRST_PASS, 20.0) for index in (0, 1, 4)]
    skipped = [GroundTruthSkipped(index) for index in (2, 3)]
    changes = RegimeChanged(Regime.MONITORING, 2, "good twice"), RegimeChanged(Regime.LEARNING, 5, "drift")
    page = page_of(tmp_path, RegimeRules(19.0, None), *truth, *firsts, *skipped, *changes)
    assert "Phase retrieval took 6.0 s. Monitoring spared it 2 perspectives, about 4.0 s" in page.text
    assert "Monitoring from perspective 2 on: good twice. Learning from perspective 5 on: drift." in page.text
    assert page.comments.count("monitoring") == page.comments.count("without ground truth") == 2
    assert page.comments.count("good enough") == 1, "there is a threshold for PSNR alone"


def test_a_run_without_regimes_says_nothing_of_them(tmp_path):
    page = page_of(tmp_path, *(scores(index, MosaicKind.FIRST_PASS, 20.0) for index in (0, 1)))
    assert "Regimes" not in page.text
    assert not {"monitoring", "without ground truth", "good enough"} & set(page.comments)


def residual_of(perspective: int, kind: MosaicKind, residual: float, error_rad: float | None = None) -> ResidualScores:
    return ResidualScores(perspective, kind, 400, 380, residual, 2 * residual, error_rad)


def test_the_score_without_ground_truth_is_told_also_of_perspectives_that_nothing_else_is_known_of(tmp_path):
    told = [
        residual_of(0, MosaicKind.FIRST_PASS, 0.05),
        residual_of(0, MosaicKind.REFRESHED, 0.03, 0.2),
        residual_of(1, MosaicKind.FIRST_PASS, 0.064, 0.31),
    ]
    summary = summary_of(*told, ResidualCalibrated(760, 2, 0.81, 1.24, usable=True))
    assert summary["perspectives"] == []
    assert summary["residuals"] == {
        "calibration": {"frames": 760, "images": 2, "correlation": 0.81, "spread": 1.24, "usable": True},
        "perspectives": [
            {
                "index": 0,
                "first_pass": {"frames": 400, "scored": 380, "residual": 0.05, "error_rad": None},
                "refreshed": {"frames": 400, "scored": 380, "residual": 0.03, "error_rad": 0.2},
            },
            {
                "index": 1,
                "first_pass": {"frames": 400, "scored": 380, "residual": 0.064, "error_rad": 0.31},
                "refreshed": None,
            },
        ],
    }
    page = page_of(tmp_path, *told, ResidualCalibrated(760, 2, 0.81, 1.24, usable=True))
    assert "Over 760 frames with a reference its rank correlation with the phase error is 0.81" in page.text
    last = "Perspective 1 in the end: 6.4 % not explained, a phase error of about 0.31 rad (380 of 400 frames scored)."
    assert last in page.text
    assert "not explained of a frame, %" in page.comments
    assert "It is not calibrated: no image" in page_of(tmp_path, *told).text
    assert "too few frames" in page_of(tmp_path, *told, ResidualCalibrated(9, 1, 0.9, 1.0, usable=False)).text


@pytest.mark.parametrize(
    ("changes", "spans"),
    [
        ([], []),
        ([(Regime.MONITORING, 3)], [(3, 10)]),
        (
            [(Regime.MONITORING, 3), (Regime.MONITORING, 5), (Regime.LEARNING, 6), (Regime.MONITORING, 8)],
            [(3, 6), (8, 10)],
        ),
        ([(Regime.LEARNING, 2), (Regime.MONITORING, 10)], []),
    ],
)
def test_monitoring_lasts_to_the_next_learning_or_the_end(changes, spans):
    events = [RegimeChanged(regime, perspective, "") for regime, perspective in changes]
    assert list(monitoring_spans(summary_of(GroundTruthSkipped(9), *events))) == spans


def test_the_step_figure_shows_the_buffers_work_beside_the_step(tmp_path):
    breakdowns = [StepBreakdown(10 * (number + 1), 1.0, 20.0, 0.5, 2.0, 6.0) for number in range(20)]
    page = page_of(tmp_path, TrainingStep(200, 0.5, 0.2, 0.3, 1e-3, 16, 24, 50.0), *breakdowns)
    parts = ("load", "train", "wait for the buffer", "insert (beside)", "draw (beside)")
    assert all(page.comments.count(part) == 1 for part in parts)
    assert "to 200" in page.comments
    assert sum(comment.startswith("to ") for comment in page.comments) == 8


def test_the_steps_of_a_long_run_are_told_in_few_letters(tmp_path):
    breakdowns = [StepBreakdown(150_000 * (number + 1), 1.0, 20.0, 0.5, 2.0, 6.0) for number in range(16)]
    page = page_of(tmp_path, TrainingStep(2_400_000, 0.5, 0.2, 0.3, 1e-3, 16, 24, 50.0), *breakdowns)
    labels = [comment for comment in page.comments if comment.startswith("to ")]
    assert labels == [f"to {step}" for step in ("300k", "600k", "900k", "1.20M", "1.50M", "1.80M", "2.10M", "2.40M")]


def test_who_has_the_report_read_aloud_is_told_what_its_figures_show(tmp_path):
    evaluations = [ValidationLoss(number, 10 * number, {0: 0.2}, 0.2, 0.3) for number in range(3)]
    told = [scores(number, MosaicKind.FIRST_PASS, 12.0 + number) for number in range(3)]
    steps = [TrainingStep(10, 0.5, 0.2, 0.3, 1e-3, 16, 24, 50.0), StepBreakdown(10, 1.0, 20.0, 0.5, 2.0, 6.0)]
    page = page_of(tmp_path, *steps, *evaluations, *told)
    assert page.tags.count("svg") == len(page.figures) == 4
    assert "Chart: loss: L1 amplitude + L1 phase, over training step" in page.figures
    assert "Chart: phase PSNR in dB, over perspective" in page.figures


def test_slow_rates_and_short_times_are_not_0(tmp_path):
    counts = EdgeCounts(2, 0, 0, 0.25, 0.6, 4.4)
    page = page_of(tmp_path, TrainingStep(10, 0.5, 0.2, 0.3, 1e-3, 16, 24, 0.04), counts)
    for line in ("Frames imaged 0.25 /s", "on 0.04 /s", "median 0.6 ms", "percentile 4.4 ms"):
        assert line in page.text


def test_unlabelled_frames_are_told_with_their_reasons(tmp_path):
    because = {Unlabelled.MONITORING: 1200, Unlabelled.RETRIEVAL_FAILED: 40}
    page = page_of(tmp_path, AcquisitionCounts(2000, 2000, 760, 0, 0, 0, 1240, 0, 0, 0, because))
    assert "1 200 because the run was monitoring; 40 because phase retrieval failed." in page.text


def test_text_from_the_run_is_never_markup(tmp_path):
    page = page_of(tmp_path, of(Part.EDGE, WarningRaised("<script>alert(1)</script>")))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text


def test_configuration_and_environment_are_shown(tmp_path):
    (tmp_path / "config.toml").write_text('[trainer]\nbatch_size = 40 # "quoted" <b>\n')
    environment = {
        "started_at": "2026-01-01T00:00:00+00:00", "command": ["ptychoflow", "run"], "host": "beamline", "seed": 7,
        "platform": "Linux", "processors": 2, "python": "3.11.7", "versions": {"torch": "2.15"}, "git_revision": None,
    }  # fmt: skip
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    page = page_of(tmp_path)
    assert 'batch_size = 40 # "quoted" <b>' in page.text
    assert "Python 3.11.7 on Linux, 2 processors, revision unknown, seed 7. torch 2.15." in page.text


def test_a_cut_off_telemetry_log_is_read_as_far_as_it_goes(tmp_path):
    run_folder(tmp_path, [TrainingStep(1, 0.5, 0.2, 0.3, 1e-3, 16, 24, 50.0)])
    with (tmp_path / "telemetry.jsonl").open("ab") as log:
        log.write(b'{"time_s": 5.0, "sender')
    assert "training" in Page(write_report(RunFolder(tmp_path)).read_text()).comments


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"is not the folder of a run that has ended: it holds no summary\.json"):
        write_report(RunFolder(tmp_path))
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json is not valid JSON"):
        write_report(RunFolder(tmp_path))


def test_a_report_that_cannot_be_replaced_is_one_clear_line(tmp_path):
    (run_folder(tmp_path, []) / "report.html").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*report\.html: "):
        write_report(RunFolder(tmp_path))
