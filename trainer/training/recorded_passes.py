"""Forward and backward passes as CUDA graphs: one launch each, where a small network otherwise takes hundreds."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.interface.pipeline import Output
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.precision import Precision

STEADY_AFTER = 8
"""Steps of one size before it is recorded: sizes change while the rehearsal buffer fills."""
MOST_RECORDINGS = 3


class RecordedPasses:
    """Runs a network in training mode, and replays batches of sizes that came often; on CUDA only.

    What a replay returns is overwritten by the next one of its size.

    Args:
        network: its parameters and buffers stay where they are in memory.
        precision: FLOAT32 or BFLOAT16.
        device: where the network is.

    Raises:
        UserError: this version of PyTorch cannot record beside other threads.
    """

    def __init__(self, network: nn.Module, *, precision: Precision, device: torch.device) -> None:
        if "capture_error_mode" not in inspect.signature(torch.cuda.make_graphed_callables).parameters:
            raise UserError(
                f"trainer.record_passes needs PyTorch 2.15, this is {torch.__version__}: update it, or leave that out"
            )
        self._network, self._precision, self._device = network, precision, device
        self._seen: Counter[torch.Size] = Counter()
        self._recordings: dict[torch.Size, Callable[[Tensor], Output]] = {}

    def __call__(self, inputs: Tensor) -> Output:
        """Return the network's output for inputs (n, *shape)."""
        shape = inputs.shape
        self._seen[shape] += 1
        steady = self._seen[shape] > STEADY_AFTER and len(self._recordings) < MOST_RECORDINGS
        if steady and shape not in self._recordings:
            self._recordings[shape] = self._record(inputs)
        if shape in self._recordings:
            return self._recordings[shape](inputs)
        with autocast(self._precision, self._device):
            output: Output = self._network(inputs)
        return output

    def _record(self, inputs: Tensor) -> Callable[[Tensor], Output]:
        """Record both passes; the runs that this takes leave the batch-norm statistics as they were."""
        kept = [buffer.clone() for buffer in self._network.buffers()]
        passes = _Passes(self._network, self._precision, self._device).train()
        # other threads receive into pinned memory and wait for copies meanwhile, which a capture of all would not bear
        recorded = torch.cuda.make_graphed_callables(passes, (inputs.clone(),), capture_error_mode="thread_local")
        # gradients are summed on the stream of the recording from now on: PyTorch waits for it, and would warn of it
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        with torch.no_grad():
            for buffer, value in zip(self._network.buffers(), kept, strict=True):
                buffer.copy_(value)
        return cast("Callable[[Tensor], Output]", recorded)


class _Passes(nn.Module):
    """Is recorded in place of the network, whose own `forward` takes batches of every size."""

    def __init__(self, network: nn.Module, precision: Precision, device: torch.device) -> None:
        super().__init__()
        self.network, self._precision, self._device = network, precision, device

    def forward(self, inputs: Tensor) -> Output:
        with autocast(self._precision, self._device, cached=False):
            output: Output = self.network(inputs)
        return output
