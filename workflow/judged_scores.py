"""Which scores a run is judged by."""

from __future__ import annotations

from dataclasses import dataclass

from ptychoflow.workflow.summary import Summary


@dataclass(frozen=True)
class JudgedScores:
    """Scores of images beside those of the constant prediction."""

    perspective: int | None
    """Its number; None for the frames that were held out, of all perspectives."""
    scores: Summary
    constant: Summary


def judged_scores(summary: Summary) -> JudgedScores | None:
    """Return the scores of the held-out frames, or else of the last perspective with any; None without."""
    held_out = summary["held_out"]
    if held_out is not None:
        return JudgedScores(None, held_out, held_out["constant"])
    for row in reversed(summary["perspectives"]):
        scores = row["refreshed"] or row["first_pass"]
        if scores is not None:
            return JudgedScores(row["index"], scores, row["constant"])
    return None
