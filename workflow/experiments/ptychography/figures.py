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
)

LATE_SHARE = 4
"""The last quarter of the evaluations is averaged: a single one may be lucky."""


def figures(record: LossRecord, held_out: HeldOut | None, *, at_once: bool) -> dict[str, Any]:
    """Return plain JSON values; `validation_matrix[i][j]` is the loss on perspective j after `sections[i]`.

    Args:
        record: what was measured.
        held_out: how the held-out perspective came out, if there is one.
        at_once: everything was learnt together; the record is of epochs, the figures of the last one.
    """
    matrix, scores = record.matrix, held_out.as_json() if held_out is not None else None
    found: dict[str, Any] = {
        "validation_loss": [fmean(matrix[-1])] if at_once else means_over_seen(matrix),
        "late_loss": fmean(fmean(row) for row in matrix[-max(1, len(matrix) // LATE_SHARE) :]),
        "raw_loss": fmean(record.raw_matrix[-1]) if record.raw_matrix else None,
        "validation_matrix": matrix[-1:] if at_once else matrix,
        "sections": record.sections,
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
        return found | {"epochs": len(matrix), "loss_after_epoch": [fmean(row) for row in matrix]}
    return found | {
        "forgetting": forgetting(matrix),
        "backward_transfer": backward_transfer(matrix),
        "forward_transfer": forward_transfer(matrix, record.untrained),
    }
