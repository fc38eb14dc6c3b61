"""The moving average of the weights that is evaluated and published."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ptychoflow.trainer.checkpoints.state_file import State, copies

NetworkT = TypeVar("NetworkT", bound=nn.Module)

WARM_UP_STEPS = 10
"""In the first steps the average follows faster, so that it forgets the random start."""


class AveragedNetwork(Generic[NetworkT]):
    """Exponential moving average of a network's parameters and batch-norm statistics.

    Averaging steadies what evaluation and the edge see: neither the last minibatches' batch-norm statistics nor the
    last gradients dominate it.

    Args:
        network: the network being trained.
        decay: share of the average that a step keeps; 0 makes the average equal the network.
    """

    def __init__(self, network: NetworkT, *, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay
        self._steps = 0
        source, average = network.state_dict(keep_vars=True), self.network.state_dict(keep_vars=True)
        names = [name for name, tensor in average.items() if tensor.is_floating_point()]
        self._source = [source[name].detach() for name in names]
        self._average = [average[name] for name in names]
        self._statistics = _running_statistics(self.network)
        self._source_statistics = _running_statistics(network)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network after a step."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + WARM_UP_STEPS))
        get_ema_multi_avg_fn(decay)(self._average, self._source, self._steps)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def restore_statistics(self) -> None:
        """Give the network the averaged batch-norm statistics, after a step that spoilt its own."""
        for own, averaged in zip(self._source_statistics, self._statistics, strict=True):
            own.copy_(averaged)

    @torch.no_grad()
    def share_statistics(self) -> None:
        """Average the batch-norm statistics over all ranks; collective, nothing to do with one rank.

        Each rank normalises by its own samples: SyncBatchNorm refuses CPU tensors, and on GPUs it would add two
        collectives per layer and step. Parameters are the same on all ranks, so after this the networks are.
        """
        if not dist.is_initialized() or not self._statistics:
            return
        flat = torch.cat([statistic.flatten() for statistic in self._statistics])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = torch.split(flat, [statistic.numel() for statistic in self._statistics])
        for statistic, part in zip(self._statistics, parts, strict=True):
            statistic.copy_(part.view_as(statistic))

    def state(self) -> State:
        """Return the average, as copies on the CPU."""
        return {"steps": self._steps, "network": copies(self.network.state_dict())}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self._steps = state["steps"]
        self.network.load_state_dict(dict(state["network"]))

    def statistics(self) -> State:
        """Return this rank's batch-norm statistics, of the network and of the average, as copies on the CPU."""
        tensors = (*self._source_statistics, *self._statistics)
        return copies({str(number): tensor for number, tensor in enumerate(tensors)})

    @torch.no_grad()
    def restore_all_statistics(self, state: State) -> None:
        """Go on from what `statistics` returned."""
        for number, tensor in enumerate((*self._source_statistics, *self._statistics)):
            tensor.copy_(state[str(number)])

    def snapshot(self) -> NetworkT:
        """Return a copy on the CPU that training does not touch."""
        return copy.deepcopy(self.network).to("cpu")


def _running_statistics(network: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
