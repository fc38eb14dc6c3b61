"""How the images of one task were classified, each once on arrival."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptychoflow.inference_edge.classification.model import Images
from ptychoflow.inference_edge.classification.records import TaskRecord
from ptychoflow.streaming.codec import Arrays, MalformedMessage
from ptychoflow.streaming.events import TaskScores
from ptychoflow.streaming.messages import ClassificationStart, FrameRole
from ptychoflow.trainer.models.accuracy import is_correct


@dataclass(frozen=True)
class ImageBlock:
    """Some images of one task, in order."""

    index: npt.NDArray[np.int32]
    role: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int64]
    image: Images

    def __len__(self) -> int:
        return len(self.index)

    def select(self, chosen: npt.NDArray[np.bool_]) -> ImageBlock:
        """Return the images for which `chosen`, bool (n,), is true."""
        return ImageBlock(self.index[chosen], self.role[chosen], self.label[chosen], self.image[chosen])


def block_from_arrays(arrays: Arrays, start: ClassificationStart) -> ImageBlock:
    """Take the arrays of a `Frames` message of images as they are, without a copy.

    Raises:
        MalformedMessage: an array is missing, or of the wrong shape or dtype.
    """
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "index": ((), "int32"),
        "role": ((), "uint8"),
        "label": ((), "int64"),
        "image": ((start.channels, start.stored_px, start.stored_px), "uint8"),
    }
    if missing := expected.keys() - arrays.keys():
        raise MalformedMessage(f"images without {', '.join(sorted(missing))}")
    count = arrays["index"].size
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if array.shape != (count, *shape) or array.dtype != dtype:
            raise MalformedMessage(f"images: {name} is {array.dtype} {array.shape}, expected {dtype} {(count, *shape)}")
    return ImageBlock(*(arrays[name] for name in expected))


class TaskTally:
    """Counts what was right; only validation images are scored, from which nothing learns.

    Args:
        task: which one.
        earlier: what an edge before this one had counted; this object goes on with it.
    """

    def __init__(self, task: int, *, earlier: TaskRecord | None = None) -> None:
        self.task = task
        self.ended = False
        """All images have been received."""
        self.queued = 0
        """Images received and not yet classified."""
        self.held: list[int] = []
        """Messages that are done with once its record says that it is complete."""
        self.images = earlier.images if earlier else 0
        """Classified."""
        self._received_below = self._done_below = earlier.next_index if earlier else 0
        self._scored = earlier.scored if earlier else 0
        self._right1 = earlier.right_top1 if earlier else 0
        self._right5 = earlier.right_top5 if earlier else 0
        self._versions = earlier.versions if earlier else None

    @property
    def complete(self) -> bool:
        """Whether every image has been classified."""
        return self.ended and self.queued == 0

    def is_done(self, index: int) -> bool:
        """Whether the image of this index has been classified; they come in order."""
        return index < self._done_below

    def drop_known(self, block: ImageBlock) -> ImageBlock:
        """Return the images that have not been received before, and remember them; they come in order."""
        new = block.select(block.index >= self._received_below)
        if len(new):
            self._received_below = int(new.index.max()) + 1
        return new

    def add(self, block: ImageBlock, logits: Tensor, *, version: int) -> None:
        """Take in images that weights `version` classified; `logits` is float32 (n, classes)."""
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
            task=self.task,
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
            task=self.task,
            complete=self.complete,
            next_index=self._done_below,
            images=self.images,
            scored=self._scored,
            right_top1=self._right1,
            right_top5=self._right5,
            versions=self._versions,
        )
