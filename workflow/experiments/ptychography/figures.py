"""The figures of one training, as results tell them."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from ptychoflow.workflow.experiments.ptychography.callback import LossRecord
from ptychoflow.workflow.experiments.ptychography.held_out import HeldOut
from ptychoflow.workflow.experiments.ptychography.transfer import (
    backward_transfer,
    forgetting,
    forward_transfer,
    means_over_seen,
    of_both,
)

LATE_SHARE = 4
"""The last quarter of the evaluations is averaged: a single one may be lucky."""


def figures(record: LossRecord, held_out: HeldOut | None, *, at_once: bool) -> dict[str, Any]:
    """Return plain JSON values.

    `validation_matrix[i][j]` is the loss on the j-th of `perspectives` after the i-th that was learnt;
    `validation_loss[i]` that on all so far, after `learnt[i]`.

    Args:
        record: what was measured.
        held_out: how the held-out perspective came out, if there is one.
        at_once: everything was learnt together; the record is of epochs, the figures of the last one.
    """
    matrix, scores = record.matrix, held_out.as_json() if held_out is not None else None
    found: dict[str, Any] = {
        "late_loss": fmean(fmean(row) for row in matrix[-max(1, len(matrix) // LATE_SHARE) :]),
        "raw_loss": fmean(record.raw_matrix[-1]) if record.raw_matrix else None,
        "untrained": record.untrained,
        "perspectives": record.perspectives,
        "held_out": {name: scores[name] for name in ("psnr_db", "ssim")} if scores else None,
        "steps": record.steps,
        "seconds": record.seconds,
        "constant": {
            "validation_loss": fmean(record.constants[-1]),
            "held_out": {name: scores["constant"][name] for name in ("psnr_db", "ssim")} if scores else None,
        },
    }
    if at_once:
        return found | {
            "validation_loss": [fmean(matrix[-1])],
            "validation_matrix": matrix[-1:],
            "epochs": len(matrix),
            "loss_after_epoch": [fmean(row) for row in matrix],
        }
    seen = means_over_seen(matrix, record.sections, record.perspectives)
    # some perspectives, hardly more than void, have no validation frame, or no other
    both = of_both(matrix, record.sections, record.perspectives)
    learnt = set(record.sections)
    untrained = [loss for at, loss in zip(record.perspectives, record.untrained, strict=True) if at in learnt]
    return found | {
        "validation_loss": list(seen.values()),
        "learnt": list(seen),
        "validation_matrix": matrix,
        "forgetting": forgetting(both),
        "backward_transfer": backward_transfer(both),
        "forward_transfer": forward_transfer(both, untrained),
    }
