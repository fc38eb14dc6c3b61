"""What reaches the edge of a stream of images: the images of each task, and the ends of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ptychoflow.inference_edge.classification.image_block import ImageBlock, image_block
from ptychoflow.inference_edge.classification.records import TaskRecord
from ptychoflow.inference_edge.classification.tally import TaskTally
from ptychoflow.inference_edge.counter import EdgeCounter
from ptychoflow.inference_edge.frame_queue import FrameQueue
from ptychoflow.inference_edge.stream_receiver import StreamReceiver, require_shape
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import ClassificationStart


@dataclass(frozen=True)
class _Repeated:
    """A message whose images had all come before."""

    sequence: int
    tally: TaskTally
    last_index: int


class ImageReceiver(StreamReceiver[ClassificationStart, TaskTally, ImageBlock]):
    """Receives images; for the other arguments see `StreamReceiver`.

    Args:
        earlier: what an edge before this one has classified; it is dropped when it comes again.
    """

    def __init__(
        self,
        inbox: Inbox,
        *,
        queue: FrameQueue[TaskTally, ImageBlock],
        queue_max: int,
        counter: EdgeCounter,
        warn: Callable[[str], None],
        earlier: Sequence[TaskRecord],
    ) -> None:
        super().__init__(
            inbox,
            ClassificationStart,
            queue=queue,
            queue_max=queue_max,
            counter=counter,
            warn=warn,
            closed=[one.task for one in earlier if one.complete],
        )
        self.sections = {one.task: TaskTally(one.task, earlier=one) for one in earlier if not one.complete}
        self._repeated: list[_Repeated] = []

    def recorded(self) -> list[int]:
        """Return messages that the records just written make dispensable, beside those of images classified."""
        done = [one for one in self._repeated if one.tally.is_done(one.last_index)]
        self._repeated = [one for one in self._repeated if not one.tally.is_done(one.last_index)]
        final, self.final = self.final, []
        return final + [one.sequence for one in done]

    def _handle_start(self, start: ClassificationStart) -> None:
        require_shape("images", (start.channels, start.stored_px, start.stored_px))

    def _parse(self, arrays: Arrays, start: ClassificationStart) -> ImageBlock:
        return image_block(arrays, start)

    def _open_section(self, index: int, angle_deg: float) -> TaskTally:
        return TaskTally(index)

    def _keep_repeated(self, sequence: int, section: TaskTally, block: ImageBlock) -> None:
        self._repeated.append(_Repeated(sequence, section, int(block.index.max(initial=-1))))
