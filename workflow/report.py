"""Writes the report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.events import Missing, Unlabelled, Unplaced
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.streaming.telemetry_log import TelemetryLog
from ptychoflow.workflow.judged_scores import judged_scores
from ptychoflow.workflow.loss_plot import loss_plot
from ptychoflow.workflow.quality_plot import quality_plot
from ptychoflow.workflow.residual_plot import residual_plot
from ptychoflow.workflow.step_plot import step_plot
from ptychoflow.workflow.summary import Summary

TEMPLATES = Path(__file__).with_name("templates")
UNFIT = (UndefinedError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)
"""What comes of a summary that lacks something, or holds something else than a run writes there."""
CLEAR_GAIN_DB = 0.5
"""A smaller advantage over the constant prediction is called slight."""
CLEAR_FACTOR = 1.5
"""A smaller multiple of the accuracy of guessing is called slight."""
PERSPECTIVES_SHOWN = 3
PERSPECTIVES_NAMED = 12
CHANNELS = ("phase", "amplitude")
PICTURES = {
    "refreshed": "Network, refreshed",
    "reference": "Reference",
    "difference": "Difference",
}
SET_ASIDE = {
    "trained": "Trained on",
    "validation": "Kept for validation",
    "held_out": "Held out",
    "excluded": "In the gap around the held-out region",
    "void": "Over void",
    "unlabelled": "Without ground truth",
    "rejected": "Rejected",
    "unplaced": "Sent by the detector, without a place in the scan",
}
UNLABELLED: dict[str, str] = {
    Unlabelled.RETRIEVAL_FAILED: "phase retrieval failed",
    Unlabelled.WORKER_LOST: "phase retrieval was killed",
    Unlabelled.MONITORING: "the run was monitoring",
    Unlabelled.SPARED: "acquisition.regime.learning_one_in spared them",
    Unlabelled.NO_TRAINER: "there was no trainer",
    Unlabelled.STOPPED: "the run was stopped",
}


UNPLACED: dict[str, str] = {
    Unplaced.NO_POSITION: "no position came in time",
    Unplaced.LATE: "they came when their series was over",
    Unplaced.SERIES_UNUSABLE: "their series showed too little to begin with",
}
MISSING: dict[str, str] = {
    Missing.GAP: "frames with higher trigger numbers came",
    Missing.POSITION_ONLY: "their positions came",
}


@dataclass(frozen=True)
class Verdict:
    """The result in words, and how good it is."""

    text: str
    grade: Literal["good", "slight", "bad", "unknown"]


def write_report(folder: RunFolder, state: RunState | None = None) -> Path:
    """Write `report.html` into the folder of a run that has ended, and return its path.

    Args:
        folder: of the run, with its summary.
        state: what is known of the run; without it, the telemetry in the folder is read.

    Raises:
        UserError: the folder holds no readable `summary.json`, or telemetry of another version; or it cannot be
            written.
    """
    summary = {"classification": None, "residuals": None, "beginning": None} | _read_json(folder.summary)
    if state is None:
        state = RunState().apply_all(TelemetryLog(folder.telemetry) if folder.telemetry.exists() else ())
    try:
        report = _render(folder, summary, state)
    except UNFIT as error:
        raise UserError(
            f"{folder.summary} is damaged, or was written by another version of ptychoflow: {error!r}"
        ) from error
    with writing(folder.report):
        write_durably(folder.report, report)
    return folder.report


def judge(summary: Summary) -> Verdict:
    """Say whether the network beats the constant prediction, on held-out frames or else on the last perspective.

    Of images, whether it beats guessing.
    """
    if summary.get("classification") is not None:
        return _judge_accuracy(summary["classification"])
    judged = judged_scores(summary)
    if judged is None:
        return Verdict("No image could be compared with a reference, so the quality is unknown.", "unknown")
    if judged.perspective is None:
        verdict = _compare("On the held-out frames, which nothing learned from,", judged.scores, judged.constant)
        return _beside_memoriser(verdict, judged.scores)
    where = (
        f"On perspective {judged.perspective} (nothing was held out, so it may be one that the network learned from)"
    )
    return _compare(where, judged.scores, judged.constant)


def _judge_accuracy(tasks: Summary) -> Verdict:
    top1, chance = tasks["average_top1"], tasks["chance"]["top1"]
    if top1 is None or chance is None:
        return Verdict(
            "No validation image was classified by a trained network, so the accuracy is unknown.", "unknown"
        )
    figures = (
        f"top-1 {_decimal(top1, 3)} on the validation images, averaged over the tasks "
        f"(online {_decimal(tasks['first_pass']['top1'], 3)}, guessing {_decimal(chance, 3)})"
    )
    if top1 <= chance:
        return Verdict(f"The final network is no better than guessing: {figures}. It has learned nothing.", "bad")
    # of images that are mostly of one class, a multiple of guessing would be more than all
    is_clear = top1 >= CLEAR_FACTOR * chance or 1.0 - top1 <= (1.0 - chance) / CLEAR_FACTOR
    grade: Literal["good", "slight"] = "good" if is_clear else "slight"
    how = "beats" if grade == "good" else "is only slightly better than"
    return Verdict(f"The final network {how} guessing: {figures}.", grade)


def _compare(where: str, scores: Summary, constant: Summary) -> Verdict:
    gain_db = _gain_db(scores, constant, "phase")
    if gain_db is None:
        return Verdict(f"{where} the phase image could not be scored.", "unknown")
    if gain_db <= 0:
        return Verdict(
            f"{where} the network is no better than the constant prediction: {_decimal(gain_db, 1)} dB in phase. "
            "It has learned nothing that helps there.",
            "bad",
        )
    correlation, gains = scores["correlation"]["phase"], f"{gain_db:.1f} dB in phase"
    if (amplitude_db := _gain_db(scores, constant, "amplitude")) is not None:
        gains += f" and {_decimal(amplitude_db, 1)} dB in amplitude"
    how = "beats" if gain_db >= CLEAR_GAIN_DB else "is only slightly better than"
    text = (
        f"{where} the network {how} the constant prediction by {gains}; phase correlation {_decimal(correlation, 2)}."
    )
    return Verdict(text, "good" if gain_db >= CLEAR_GAIN_DB else "slight")


def _beside_memoriser(verdict: Verdict, held_out: Summary) -> Verdict:
    """Say how far the network is ahead of what only remembers: without a lead, it has stored and not learned."""
    memoriser = held_out.get("memoriser")
    lead_db = None if memoriser is None else _gain_db(held_out, memoriser, "phase")
    if lead_db is None or verdict.grade not in ("good", "slight"):
        return verdict
    if lead_db <= 0:
        behind = f"{_decimal(abs(lead_db), 1)} dB"
        how = "does as well" if behind == "0.0 dB" else f"does better: the network is {behind} behind it in phase"
        text = f"{verdict.text} But the memoriser, a list of the frames with their ground truth, {how}."
        return Verdict(text, "slight")
    return Verdict(f"{verdict.text} It is {_decimal(lead_db, 1)} dB ahead of what only remembers.", verdict.grade)


def _gain_db(scores: Summary, constant: Summary, channel: str) -> float | None:
    own, baseline = scores["psnr_db"][channel], constant["psnr_db"][channel]
    return None if own is None or baseline is None else own - baseline


def _render(folder: RunFolder, summary: Summary, state: RunState) -> str:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters.update(decimal=_decimal, count=_count, figure=_figure)
    return environment.get_template("report.html.j2").render(
        name=folder.path.resolve().name,
        summary=summary,
        verdict=judge(summary),
        set_aside=SET_ASIDE,
        reasons=[
            ("Without ground truth", summary["unlabelled_because"], UNLABELLED),
            ("Without a place in the scan", summary["unplaced_because"], UNPLACED),
            ("Never came, as is known", summary["missing_because"], MISSING),
        ],
        held_out_in=_named(summary["held_out"]["perspectives"]) if summary["held_out"] else None,
        channels=CHANNELS,
        images=_images(folder, summary),
        loss=_markup(loss_plot(state, of_images=summary["classification"] is not None)),
        steps=_markup(step_plot(state)),
        psnr=_markup(quality_plot(summary, "psnr_db", "phase PSNR in dB")),
        ssim=_markup(quality_plot(summary, "ssim", "phase SSIM")),
        residuals=_markup(residual_plot(summary)),
        config=_read_text(folder.config),
        environment=_read_json(folder.environment, missing={}),
    )


def _named(perspectives: Sequence[int]) -> str:
    """Return which perspectives these are, at least one, rising; of many the first and the last."""
    *before, last = perspectives
    if not before:
        return f"perspective {last}"
    if len(perspectives) > PERSPECTIVES_NAMED:
        return f"{len(perspectives)} perspectives from {before[0]} to {last}"
    return f"perspectives {', '.join(map(str, before))} and {last}"


def _images(folder: RunFolder, summary: Summary) -> list[Summary]:
    """Return the pictures of the perspectives shown, each as a data URL."""
    shown = []
    for index in _perspectives_shown(folder, summary):
        rows = [[(kind, channel, title) for kind, title in PICTURES.items()] for channel in CHANNELS]
        rows.append(
            [
                *(("first_pass", channel, "Network, first pass") for channel in CHANNELS),
                ("refreshed", "residual", "share of the frames’ energy not explained, refreshed"),
            ]
        )
        shown.append({"index": index, "rows": [_pictures(folder, index, row) for row in rows]})
    return shown


def _pictures(folder: RunFolder, index: int, wanted: Sequence[tuple[str, str, str]]) -> list[Summary]:
    paths = [(folder.picture(index, kind, channel), channel, title) for kind, channel, title in wanted]
    return [
        {"title": f"{channel.capitalize()}: {title.lower()}", "url": _data_url(path)}
        for path, channel, title in paths
        if path.exists()
    ]


def _perspectives_shown(folder: RunFolder, summary: Summary) -> Sequence[int]:
    """Return those with held-out frames, then the last, the middle and the first, as far as they have pictures."""
    there = folder.pictured()
    if not there:
        return []
    held_out = summary["held_out"]["perspectives"] if summary["held_out"] else []
    wanted = [*reversed(held_out), there[-1], there[len(there) // 2], there[0]]
    return [index for index in dict.fromkeys(wanted) if index in there][:PERSPECTIVES_SHOWN]


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _read_text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None


def _read_json(path: Path, *, missing: Summary | None = None) -> Summary:
    if missing is not None and not path.exists():
        return missing
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not the folder of a run that has ended: it holds no {path.name}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); the run may have been cut off") from error


def _markup(svg: str | None) -> Markup | None:
    """The SVG is matplotlib's own output, whose text is escaped already."""
    return None if svg is None else Markup(svg)  # noqa: S704


def _decimal(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _figure(value: float | None) -> str:
    """Write it to two digits at least: a slow rate and a short time are not 0."""
    return "–" if value is None else _decimal(value, 0) if abs(value) >= 10 else f"{value:.2g}".replace("-", "−")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")
