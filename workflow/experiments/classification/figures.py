"""The figures of one training, as results tell them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ptychoflow.trainer.continual_metrics import average_over_seen, backward_transfer, forgetting, forward_transfer
from ptychoflow.trainer.pipelines.classification.offline.record import TrainingRecord


def figures(record: TrainingRecord) -> dict[str, Any]:
    """Return plain JSON values; accuracies are shares, `accuracy_top1[i][j]` that on task j after task i."""
    top1, top5 = [row.top1 for row in record.after_task], [row.top5 for row in record.after_task]
    last = len(top1) - 1
    return {
        "accuracy_top1": top1,
        "accuracy_top5": top5,
        "average_top1": average_over_seen(top1[-1], task=last),
        "average_top5": average_over_seen(top5[-1], task=last),
        "forgetting": forgetting(top1),
        "backward_transfer": backward_transfer(top1),
        "forward_transfer": forward_transfer(top1, record.untrained.top1),
        "seconds": record.seconds,
        "ranks_of_starts": record.starts,
        "steps": record.steps,
        "samples": record.samples,
        "skipped_steps": record.skipped_steps,
        "corrupt_images": record.corrupt,
        "breakdown_ms": record.breakdown_ms,
        "buffer": record.buffer,
        "epochs": [asdict(epoch) for epoch in record.epochs],
    }
