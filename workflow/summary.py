"""The summary of a run, the content of `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from ptychoflow.streaming.events import (
    BufferReport,
    Channels,
    PerspectiveScores,
    Quality,
    ResidualScores,
    TaskScores,
    chance,
)
from ptychoflow.streaming.state.classification import TaskHistory
from ptychoflow.streaming.state.perspectives import Perspective
from ptychoflow.streaming.state.regime import RegimeHistory
from ptychoflow.streaming.state.rows import is_figure, mean
from ptychoflow.streaming.state.run import RunState
from ptychoflow.trainer.continual_metrics import backward_transfer, forgetting

Summary = dict[str, Any]

STEP_PARTS = ("load_ms", "train_ms", "buffer_wait_ms", "populate_ms", "augment_ms")
TOPS = {"top1": 1, "top5": 5}


def summarise(state: RunState, *, interrupted: bool = False) -> Summary:
    """Return the summary of what is known of a run; plain JSON values only, None for figures that are not finite.

    Frames that were on their way when a run was `interrupted` count as lost. Whose last counts have not come is in
    `unheard`: what it has not counted is not known to be lost.
    """
    with state.lock:
        content = {"interrupted": interrupted, **_sections(state)}
    return {key: _finite(value) for key, value in content.items()}


def _sections(state: RunState) -> Summary:
    counts, weights = state.ledger.counts(), state.weights
    frames = asdict(counts) | {"lost": counts.lost}
    for reasons in ("unlabelled_because", "unplaced_because", "missing_because"):
        del frames[reasons]
    perspectives = sorted(state.perspectives.rows.all(), key=lambda row: row.index)
    scored = [row for row in perspectives if row.newest or row.ground_truth]
    warnings = sorted(state.warnings.rows.all(), key=lambda row: row.id)
    return {
        "seconds": (state.last_event_s or 0.0) - (state.started_s or 0.0),
        "beginning": _beginning(state),
        "scan": None if state.scan is None else msgspec.structs.asdict(state.scan),
        "frames": frames,
        "unheard": state.ledger.unheard,
        "unlabelled_because": _by_reason(counts.unlabelled_because),
        "unplaced_because": _by_reason(counts.unplaced_because),
        "missing_because": _by_reason(counts.missing_because),
        "held_out": _held_out(state),
        "classification": _classification(state.tasks),
        "perspectives": [_perspective(row) for row in scored],
        "residuals": _residuals(state, perspectives),
        "validation_loss": [asdict(row) for row in state.training.evaluations.all()],
        "weights": {
            "published": weights.published.count,
            "applied": weights.applied.count,
            "rejected": weights.rejected.count,
        },
        "regime": _regime(state.regime),
        "buffer": _buffer(list(state.training.buffers.values())),
        "throughput": _throughput(state),
        "training": _training(state),
        "warnings": [{"part": row.part, "text": row.text, "count": row.count} for row in warnings],
        "failures": [{"part": part, "text": text} for part, text in state.parts.failures],
        "forgotten": {"perspectives": state.perspectives.rows.forgotten, "warnings": state.warnings.rows.forgotten},
    }


def _beginning(state: RunState) -> Summary:
    """Return when there was an image and when ground truth, in seconds from the start, and the image's scores then."""
    beginning, started_s = state.beginning, state.started_s or 0.0
    # what came after ground truth is no preview of it
    previewed = beginning.lead_s is not None
    times_s = {"first_image_s": beginning.imaged_s, "first_ground_truth_s": beginning.ground_truth_s}
    return {
        **{name: None if time_s is None else time_s - started_s for name, time_s in times_s.items()},
        "scores": _mean_scores([beginning.quality]) if previewed and beginning.quality is not None else None,
        "constant": _mean_scores([beginning.constant]) if previewed and beginning.constant is not None else None,
    }


def _held_out(state: RunState) -> Summary | None:
    """Figures are means over the perspectives that have held-out frames (usually one)."""
    scores = state.perspectives.held_out()
    if not scores:
        return None
    remembered = [one.memoriser for one in scores if one.memoriser is not None]
    return {
        "perspectives": [one.perspective for one in scores],
        "frames": sum(one.frames for one in scores),
        "model_version": max(one.model_version for one in scores),
        **_mean_scores([one.quality for one in scores]),
        "constant": _mean_scores([one.constant for one in scores]),
        "memoriser": _mean_scores(remembered) if remembered else None,
    }


def _by_reason(frames: Mapping[Any, int]) -> Summary:
    return {str(why): count for why, count in frames.items()}


def _perspective(row: Perspective) -> Summary:
    newest = row.newest
    return {
        "index": row.index,
        "angle_deg": newest.angle_deg if newest else None,
        "frames": newest.frames if newest else None,
        "first_pass": _scores(row.first_pass),
        "refreshed": _scores(row.refreshed),
        "constant": {"model_versions": [], **_mean_scores([newest.constant])} if newest else None,
        "ground_truth": str(row.ground_truth) if row.ground_truth else None,
    }


def _residuals(state: RunState, perspectives: Sequence[Perspective]) -> Summary | None:
    """Return the score without ground truth of every perspective that has one, also of those without ground truth."""
    scored = [row for row in perspectives if row.first_pass_residual is not None]
    if not scored:
        return None
    return {
        "calibration": None if state.calibration is None else msgspec.structs.asdict(state.calibration),
        "perspectives": [
            {
                "index": row.index,
                "first_pass": _residual(row.first_pass_residual),
                "refreshed": _residual(row.refreshed_residual),
            }
            for row in scored
        ],
    }


def _residual(residual: ResidualScores | None) -> Summary | None:
    if residual is None:
        return None
    figures = ("frames", "scored", "residual", "error_rad")
    return {name: getattr(residual, name) for name in figures}


def _scores(scores: PerspectiveScores | None) -> Summary | None:
    return None if scores is None else {"model_versions": scores.model_versions, **_mean_scores([scores.quality])}


def _mean_scores(qualities: Sequence[Quality]) -> Summary:
    return {
        "correlation": _mean_channels([quality.correlation for quality in qualities]),
        "psnr_db": _mean_channels([quality.psnr_db for quality in qualities]),
        "ssim": _mean_channels([quality.ssim for quality in qualities]),
    }


def _mean_channels(figures: Sequence[Channels]) -> dict[str, float | None]:
    return {"amplitude": mean(one.amplitude for one in figures), "phase": mean(one.phase for one in figures)}


def _regime(regime: RegimeHistory) -> Summary:
    rules = regime.rules
    return {
        "name": str(regime.regime),
        "switches": regime.switches,
        "ground_truth_seconds": regime.seconds,
        "ground_truth_seconds_saved": regime.seconds_saved,
        "perspectives_skipped": regime.skipped,
        "thresholds": {"psnr_db": rules.psnr_db, "ssim": rules.ssim} if rules else None,
        "changes": [
            {
                "regime": str(change.regime),
                "perspective": change.perspective,
                "reason": change.reason,
                "acquired": change.acquired,
            }
            for _, change in regime.changes
        ],
    }


def _buffer(reports: Sequence[BufferReport]) -> Summary | None:
    """Sum the sizes and average the times over ranks."""
    if not reports:
        return None
    return {
        "capacity": reports[0].capacity,
        "size": sum(report.size for report in reports),
        "transport": reports[0].transport,
        "hidden_fraction": mean(report.hidden_fraction for report in reports),
        "waited_ms": mean(report.waited_ms for report in reports),
        "background_ms": mean(report.background_ms for report in reports),
    }


def _throughput(state: RunState) -> Summary:
    edge, step = state.edge, state.training.newest
    return {
        "frames_per_s": state.imaged.per_s(otherwise=edge.frames_per_s if edge else None),
        "samples_trained_per_s": state.training.samples.per_s(otherwise=step.samples_per_s if step else None),
        "frame_to_image_ms": {
            "p50": edge.frame_to_image_p50_ms if edge else None,
            "p99": edge.frame_to_image_p99_ms if edge else None,
        },
    }


def _training(state: RunState) -> Summary | None:
    training, curve = state.training, state.series["steps"]
    if training.steps is None:
        return None
    step_ms = {name: curve.mean(name) for name in STEP_PARTS}
    return {
        "steps": training.steps,
        "resumed_from_steps": list(training.resumed_from_steps),
        "stream_samples": training.newest.stream_samples if training.newest else None,
        "rehearsed_samples": training.newest.rehearsed_samples if training.newest else None,
        "step_ms": step_ms if curve.newest is not None else None,
    }


def _classification(tasks: TaskHistory) -> Summary | None:
    """Return the section on classes that came task by task; None where no images were streamed.

    `first_pass` is what the edge made of each validation image on arrival; `accuracy_topN[i][j]` is the accuracy
    on task j after task i, the last row that of the final network; averages are over the tasks of that row,
    and so is `chance`, the accuracy of always naming the classes that are right most often.
    """
    info = tasks.info
    if info is None:
        return None
    live = [tasks.live(task) for task in range(tasks.tasks)]
    rows = {top: [_row(getattr(one, top), tasks=one.after_task + 1) for one in tasks.after()] for top in TOPS}
    seen = len(rows["top1"][-1]) if rows["top1"] else tasks.tasks
    return {
        "source": info.source,
        "classes": info.classes,
        "image_px": info.stored_px,
        "chance": {name: chance(info, top=top, seen=seen) for name, top in TOPS.items()},
        "tasks": [_task(task, names, live[task]) for task, names in enumerate(info.class_names)],
        "first_pass": {top: mean(getattr(one, top) for one in live if one is not None) for top in TOPS},
        "average_top1": mean(rows["top1"][-1]) if rows["top1"] else None,
        "average_top5": mean(rows["top5"][-1]) if rows["top5"] else None,
        "accuracy_top1": rows["top1"],
        "accuracy_top5": rows["top5"],
        "forgetting": _of_whole(rows["top1"], forgetting),
        "backward_transfer": _of_whole(rows["top1"], backward_transfer),
    }


def _task(task: int, names: Sequence[str], live: TaskScores | None) -> Summary:
    scores = live and {
        "top1": live.top1,
        "top5": live.top5,
        "validation_images": live.scored,
        "model_versions": [live.oldest_version, live.newest_version],
    }
    return {"index": task, "classes": list(names), "images": live.images if live else 0, "first_pass": scores}


def _row(shares: Mapping[int, float], *, tasks: int) -> list[float | None]:
    return [shares.get(task) for task in range(tasks)]


def _of_whole(rows: list[list[float | None]], figure: Any) -> float | None:
    """Return a figure of the matrix, or None where a row or an accuracy is missing."""
    whole = all(len(row) == number + 1 and None not in row for number, row in enumerate(rows))
    return figure(rows) if rows and whole else None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not is_figure(value):
        return None
    return value
