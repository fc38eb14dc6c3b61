"""The end of a run: its summary and report on disk, its result in words, and whether it was sound."""

from __future__ import annotations

from pathlib import Path

from ptychoflow.streaming.errors import writing
from ptychoflow.streaming.events import Unlabelled
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.json_results import write_json
from ptychoflow.workflow.judged_scores import judged_scores
from ptychoflow.workflow.report import write_report
from ptychoflow.workflow.summary import Summary, summarise


def write_results(
    state: RunState, folder: RunFolder, *, interrupted: bool = False, failed: bool = False
) -> tuple[Summary, Path]:
    """Write `summary.json` and `report.html`; return the summary and the report's path.

    Raises:
        UserError: the disk does not take them; a summary that was there before is untouched.
    """
    summary = summarise(state, interrupted=interrupted)
    summary["ended_well"] = not (interrupted or failed) and complaint(summary) is None
    with writing(folder.summary):
        write_json(summary, folder.summary)
    return summary, write_report(folder, state)


def complaint(summary: Summary) -> str | None:
    """Return why a run has not ended well, or None: every frame is accounted for, and what should be learnt was."""
    frames = summary["frames"]
    if not frames["acquired"]:
        return "no frame was acquired"
    unheard = _unheard(summary)
    if frames["lost"]:
        text = f"the frame ledger does not balance: {frames['lost']} of {frames['acquired']} frames are unaccounted for"
        return text + unheard
    if frames["inferred"] != frames["published"]:
        return f"{frames['inferred']} of {frames['published']} published frames were imaged{unheard}"
    return _unlearnt(frames, summary["unlabelled_because"])


def _unheard(summary: Summary) -> str:
    """Return for whom what does not balance may be balanced: its last counts have not come."""
    if not summary["unheard"]:
        return ""
    names = " and ".join(summary["unheard"])
    return f"; whether they are lost is not known, because {names} ended, or was cut off, without a last count"


def _unlearnt(frames: Summary, because: Summary) -> str | None:
    """Return what should have been learnt from and could not: everything, or what a resumed run may succeed with."""
    if killed := because.get(Unlabelled.WORKER_LOST, 0):
        return (
            f"{killed} frames are without ground truth, because phase retrieval was killed; "
            "`ptychoflow resume` tries it again"
        )
    failed = because.get(Unlabelled.RETRIEVAL_FAILED, 0)
    unusable = frames["void"] + frames["rejected"] + failed
    spared = because.get(Unlabelled.MONITORING, 0) + because.get(Unlabelled.SPARED, 0)
    if unusable == 0 or frames["trained"] + frames["validation"] > 0 or spared:
        return None
    return (
        f"none of the {frames['acquired']} frames could be learnt from: {frames['void']} void, "
        f"{frames['rejected']} refused, {failed} without ground truth because phase retrieval failed"
    )


def headline(summary: Summary) -> str:
    """Return the result in one line: quality of the held-out image, or else of the last perspective, and the ledger.

    Of images, the accuracy.
    """
    frames = summary["frames"]
    lost = "lost or not known of" if summary["unheard"] and frames["lost"] else "lost"
    ledger = f"{frames['acquired']} frames acquired, {frames['inferred']} imaged, {frames['lost']} {lost}"
    tasks = summary.get("classification")
    return f"{_quality(summary) if tasks is None else _accuracy(tasks)}; {ledger}"


def _accuracy(tasks: Summary) -> str:
    chance = _figure(tasks["chance"]["top1"], ".3f")
    return (
        f"top-1, mean of {len(tasks['tasks'])} tasks: {_figure(tasks['average_top1'], '.3f')} of the final network, "
        f"{_figure(tasks['first_pass']['top1'], '.3f')} online (guessing {chance})"
    )


def _quality(summary: Summary) -> str:
    judged = judged_scores(summary)
    if judged is None:
        return "no image was scored"
    of = "held-out phase" if judged.perspective is None else f"phase of perspective {judged.perspective}"
    return f"{of}: " + _compare(judged.scores, judged.constant, memoriser=judged.scores.get("memoriser"))


def _compare(scores: Summary, constant: Summary, *, memoriser: Summary | None = None) -> str:
    correlation, psnr_db, constant_db = (
        scores["correlation"]["phase"],
        scores["psnr_db"]["phase"],
        constant["psnr_db"]["phase"],
    )
    remembered = "" if memoriser is None else f", memoriser {_figure(memoriser['psnr_db']['phase'], '.1f')} dB"
    return (
        f"correlation {_figure(correlation, '.2f')}, PSNR {_figure(psnr_db, '.1f')} dB "
        f"(constant prediction {_figure(constant_db, '.1f')} dB{remembered})"
    )


def _figure(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
