"""One small all-reduce at the beginning of every step, so that all ranks take the same kind of step."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Proposal:
    """What this rank has for the next step."""

    stream: int
    """Samples of the stream."""
    samples: int
    """Samples altogether."""
    section_ended: bool
    """All samples of the section have been trained on, apart from those of this proposal."""
    stream_ended: bool
    """Likewise of the stream."""
    stop: bool
    """The part was told to stop."""
    publish: bool
    """Weights are due; rank 0 alone proposes this."""
    finish: float
    """How much of the training after the end of the stream is done; rank 0 alone proposes this."""
    checkpoint: bool = False
    """A checkpoint is due; rank 0 alone proposes this."""


@dataclass(frozen=True)
class Agreed:
    """What all ranks do in this step."""

    stream: int
    """Samples of the stream on all ranks."""
    samples: int
    """Samples altogether on all ranks; 0: no rank has any, no step is made."""
    section_ended: bool
    """On every rank."""
    stream_ended: bool
    """On every rank."""
    stop: bool
    publish: bool
    finish: float
    checkpoint: bool = False

    @property
    def representatives(self) -> int:
        """Samples on all ranks that are not the stream's."""
        return self.samples - self.stream


def agree(proposal: Proposal) -> Agreed:
    """Join the proposals of all ranks; blocks until every rank has made its own."""
    sums = torch.tensor([float(value) for value in astuple(proposal)], dtype=torch.float64)
    world_size = 1
    if dist.is_initialized():
        world_size = dist.get_world_size()
        dist.all_reduce(sums)
    stream, samples, section_ended, stream_ended, stop, publish, finish, checkpoint = sums.tolist()
    return Agreed(
        stream=int(stream),
        samples=int(samples),
        section_ended=section_ended == world_size,
        stream_ended=stream_ended == world_size,
        stop=stop > 0,
        publish=publish > 0,
        finish=finish,
        checkpoint=checkpoint > 0,
    )
