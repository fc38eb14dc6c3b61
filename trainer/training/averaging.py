"""The moving average of the weights that is evaluated and published."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ptychoflow.trainer.checkpoints.state_file import State, copies
from ptychoflow.trainer.training.flat import flatten

NetworkT = TypeVar("NetworkT", bound=nn.Module)

WARM_UP_STEPS = 10
"""In the first steps the average follows faster, so that it forgets the random start."""
STALE_PER_STEP = 0.1
"""Share of their weight that a rank's statistics lose with a step in which it had no samples: batch norm's momentum."""
LEAST_FRESH = 1e-9
"""Of ranks none of which has had any samples."""


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
        self._freshness = 0.0
        """Of this rank's statistics: share of the last steps for which it had samples, 0 to 1."""
        self._statistics = _running_statistics(self.network)
        self._source_statistics = _running_statistics(network)
        self._average = _flat_state(self.network, self._statistics)
        self._source = _flat_state(network, self._source_statistics)

    @property
    def source_weights(self) -> Tensor:
        """All parameters of the network being trained, (n,): they are views of it."""
        return self._source.weights

    @property
    def averages(self) -> bool:
        """Whether it is more than a copy of the network; a copy differs where ranks share their statistics."""
        return self._decay > 0

    @torch.no_grad()
    def update(self, made: Tensor | None = None, *, had_samples: bool = True) -> None:
        """Take in the network after a step.

        Args:
            made: bool, on the device. Where it is false, the step is none: the average stays as it is, and the network
                gets its batch-norm statistics instead of those that the step spoilt. Say `take_back` once that is
                known. None is true.
            had_samples: whether this rank had any for the step.
        """
        self._steps += 1
        self._freshness += STALE_PER_STEP * (had_samples - self._freshness)
        decay = min(self._decay, self._steps / (self._steps + WARM_UP_STEPS))
        if made is None:
            made = torch.ones((), dtype=torch.bool, device=self._average.weights.device)
        torch.where(made, self._source.statistics, self._average.statistics, out=self._source.statistics)
        for average, source in zip(self._average, self._source, strict=True):
            average.lerp_(source, (1.0 - decay) * made.to(average.dtype))

    def take_back(self) -> None:
        """Count the last step as none."""
        self._steps -= 1

    @torch.no_grad()
    def share_statistics(self) -> None:
        """Average the batch-norm statistics over all ranks; collective, nothing to do with one rank.

        Each rank normalises by its own samples: SyncBatchNorm refuses CPU tensors, and on GPUs it would add two
        collectives per layer and step. Parameters are the same on all ranks, so after this the networks are.
        A rank that had samples for few of the last steps, or for none, has statistics of a network that is gone, so
        its own weigh less.
        """
        if not dist.is_initialized() or not self._statistics:
            return
        own = self._average.statistics.new_tensor(max(self._freshness, LEAST_FRESH))
        of_all = own.clone()
        dist.all_reduce(of_all)
        self._average.statistics.mul_(own / of_all)
        dist.all_reduce(self._average.statistics)

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
        own = copies({str(number): tensor for number, tensor in enumerate(tensors)})
        return {**own, "freshness": self._freshness}

    @torch.no_grad()
    def restore_all_statistics(self, state: State) -> None:
        """Go on from what `statistics` returned."""
        for number, tensor in enumerate((*self._source_statistics, *self._statistics)):
            tensor.copy_(state[str(number)])
        self._freshness = state.get("freshness", 1.0)  # an earlier version did not keep it

    @torch.no_grad()
    def restore_mean_statistics(self, states: Sequence[State]) -> None:
        """Go on from what `statistics` returned on ranks of another number: as `share_statistics` weighs them."""
        freshness = [max(state.get("freshness", 1.0), LEAST_FRESH) for state in states]
        for number, tensor in enumerate((*self._source_statistics, *self._statistics)):
            weighted = [fresh * state[str(number)] for fresh, state in zip(freshness, states, strict=True)]
            tensor.copy_(torch.stack(weighted).sum(dim=0) / sum(freshness))
        self._freshness = max(freshness)

    def snapshot(self) -> NetworkT:
        """Return a copy on the CPU that training does not touch."""
        return copy.deepcopy(self.network).to("cpu")


class _FlatState(NamedTuple):
    """All floating-point tensors of a network's state, each kind in one piece of memory."""

    weights: Tensor
    statistics: Tensor
    others: Tensor


def _flat_state(network: nn.Module, statistics: list[Tensor]) -> _FlatState:
    known = {id(tensor) for tensor in statistics}
    others = [one for one in network.buffers() if one.is_floating_point() and id(one) not in known]
    weights = flatten(list(network.parameters()))
    # what is empty must be on the device too: operations ask for one device, not for elements
    empty = weights.new_zeros(0)
    return _FlatState(weights, *(flatten(tensors) if tensors else empty for tensors in (statistics, others)))


def _running_statistics(network: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
