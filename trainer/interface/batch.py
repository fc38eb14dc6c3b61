"""What one step trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ptychoflow.buffer import Representatives
from ptychoflow.trainer.interface.pipeline import Minibatch, Output, Pipeline


@dataclass(frozen=True)
class Batch:
    """Samples of the stream followed by representatives; either may be none."""

    inputs: Tensor
    """What the network sees, (n, *shape)."""
    target: Output
    """Ground truth of all samples, or of the stream's alone where the buffer does not store it."""
    activation: Output
    """The representatives' stored activations; none where the buffer does not store them."""
    minibatch: Minibatch | None
    """The samples of the stream as they came."""
    ids: Tensor
    """The representatives' ids, int64; what `RehearsalBuffer.update_items` takes."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.inputs)

    @property
    def stream(self) -> int:
        """The first `stream` samples are the stream's."""
        return len(self) - len(self.ids)

    def of_stream(self, output: Output) -> Output:
        """Return the rows of the stream's samples."""
        return tuple(head[: self.stream] for head in output)

    def of_representatives(self, output: Output) -> Output:
        """Return the rows of the representatives."""
        return tuple(head[self.stream :] for head in output)


def join(
    minibatch: Minibatch | None,
    representatives: Representatives | None,
    *,
    pipeline: Pipeline,
    device: torch.device,
) -> Batch:
    """Put the stream's samples in front of the representatives, on `device`; copies to a GPU are not waited for.

    Neither samples in pinned memory nor any on `device` may be written to while the step lasts: these are not copied
    where nothing is joined to them.
    """
    old = representatives.tensors if representatives is not None else {}
    new = minibatch or {}

    def joined(name: str, parts: Sequence[Mapping[str, Tensor]]) -> Tensor:
        # what comes from a GPU to the CPU is waited for: the CPU would read it before it has arrived
        found = [part[name].to(device, non_blocking=device.type != "cpu") for part in parts if name in part]
        if len(found) == 1:
            return found[0]
        field = pipeline.fields[name]
        return torch.cat(found) if found else torch.zeros(0, *field.shape, dtype=field.torch_dtype, device=device)

    return Batch(
        inputs=joined(pipeline.network_input, (new, old)),
        target=tuple(joined(name, (new, old)) for name in pipeline.targets),
        activation=tuple(joined(name, (old,)) for name in pipeline.activations),
        minibatch=minibatch,
        ids=representatives.ids if representatives is not None else torch.zeros(0, dtype=torch.int64),
    )
