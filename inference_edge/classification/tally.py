"""How the images of one task were classified, each once on arrival."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptychoflow.inference_edge.classification.image_block import ImageBlock
from ptychoflow.inference_edge.classification.records import TaskRecord
from ptychoflow.inference_edge.section import Section
from ptychoflow.streaming.events import TaskScores
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.models.accuracy import is_correct


class TaskTally(Section):
    """Counts what was right; only validation images are scored, from which nothing learns.

    Args:
        task: which one.
        earlier: what an edge before this one had counted; this object goes on with it.
    """

    def __init__(self, task: int, *, earlier: TaskRecord | None = None) -> None:
        super().__init__(task)
        self.images = earlier.images if earlier else 0
        """Classified."""
        self._received_below = self._done_below = earlier.next_index if earlier else 0
        self._scored = earlier.scored if earlier else 0
        self._right1 = earlier.right_top1 if earlier else 0
        self._right5 = earlier.right_top5 if earlier else 0
        self._versions = earlier.versions if earlier else None

    def is_done(self, index: int) -> bool:
        """Whether the image of this index has been classified; they come in order."""
        return index < self._done_below

    def mark_received(self, index: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return which images (n,) have not been received before, bool (n,), and remember them; they come in order."""
        new: npt.NDArray[np.bool_] = index >= self._received_below
        self._received_below = max(self._received_below, int(index.max(initial=-1)) + 1)
        return new

    def count(self, block: ImageBlock, logits: Tensor, *, version: int) -> None:
        """Count images that weights `version` classified; `logits` is float32 (n, classes)."""
        self.images += len(block)
        self._done_below = int(block.index.max()) + 1
        judged = torch.from_numpy(block.role == FrameRole.VALIDATION)
        label, outputs = torch.from_numpy(block.label.copy())[judged], logits[judged]
        finite = outputs.isfinite().all(dim=1)
        self._scored += len(label)
        self._right1 += int((is_correct(outputs, label, top=1) & finite).sum())
        self._right5 += int((is_correct(outputs, label, top=5) & finite).sum())
        oldest, newest = self._versions or (version, version)
        self._versions = min(oldest, version), max(newest, version)

    def event(self) -> TaskScores | None:
        """Return the scores so far, None before the first validation image."""
        if not self._scored or self._versions is None:
            return None
        return TaskScores(
            task=self.index,
            images=self.images,
            scored=self._scored,
            top1=self._right1 / self._scored,
            top5=self._right5 / self._scored,
            oldest_version=self._versions[0],
            newest_version=self._versions[1],
        )

    def record(self) -> TaskRecord:
        """Return how far this task is."""
        return TaskRecord(
            task=self.index,
            complete=self.complete,
            next_index=self._done_below,
            images=self.images,
            scored=self._scored,
            right_top1=self._right1,
            right_top5=self._right5,
            versions=self._versions,
        )
