"""One optimiser step over all ranks."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator
from typing import Any, Generic

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ptychoflow.trainer.checkpoints.state_file import State, copies
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.pipeline import Output, Pipeline
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.settings import LearningSettings
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.averaging import AveragedNetwork, NetworkT
from ptychoflow.trainer.training.optimizer import make_optimizer, optimizer_state, restore_optimizer
from ptychoflow.trainer.training.schedule import Schedule

log = logging.getLogger(__name__)

NO_BUFFER_EXCHANGE: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}
"""The argument was renamed in PyTorch 2.13."""


class Learner(Generic[NetworkT]):
    """Holds the network, its optimiser and its moving average. Its constructor and `train` are collective.

    The network is replicated with DistributedDataParallel where there are several ranks; otherwise it is used as it is.

    Args:
        network: the same on all ranks, or rank 0's is taken; its output has the pipeline's heads.
        pipeline: says what the network sees.
        settings: optimiser, averaging.
        schedule: the rates.
        device: where the network is trained.
        precision: FLOAT32 or BFLOAT16.
    """

    def __init__(
        self,
        network: NetworkT,
        pipeline: Pipeline,
        settings: LearningSettings,
        *,
        schedule: Schedule,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.steps = 0
        self.rate = 0.0
        self._schedule, self._device, self._precision = schedule, device, precision
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        self._parallel: nn.Module = self._network
        if self._world_size > 1:
            self._parallel = DistributedDataParallel(self._network, **NO_BUFFER_EXCHANGE)
        self._optimizer = make_optimizer(settings.optimizer, self._network, rate=settings.learning_rate)
        self._accumulate, self._accumulated = settings.optimizer.accumulate, 0
        self.averaged = AveragedNetwork(self._network, decay=settings.averaging)
        seen = pipeline.fields[pipeline.network_input]
        self._nothing = torch.zeros(1, *seen.shape, dtype=seen.torch_dtype, device=device)

    def train(self, batch: Batch | None, strategy: Strategy, agreed: Agreed) -> Tensor | None:
        """Go down the loss that the strategy's shares on all ranks add up to.

        A rank without a batch has no share. The optimiser makes its step when as many gradients as the settings ask
        for have been averaged. If they are not finite, which all ranks find alike because they share them, the weights
        stay as they are.

        Returns:
            This rank's share of the loss, (terms,), or None if the step was skipped.
        """
        if self._accumulated == 0:
            self._optimizer.zero_grad()
        completes = self._accumulated + 1 == self._accumulate
        with contextlib.nullcontext() if completes else self._without_exchange():
            share = self._share(batch, strategy, agreed)
            self._add_gradient(share.sum())
        self._accumulated = 0 if completes else self._accumulated + 1
        if not completes:
            return share.detach()
        if not self._gradient_is_finite():
            self.averaged.restore_statistics()
            return None
        self._step(agreed.finish)
        return share.detach()

    @contextlib.contextmanager
    def resting(self) -> Iterator[NetworkT]:
        """Lend the network as the last step left it, in evaluation mode; no step may be made meanwhile."""
        self._network.eval()
        try:
            yield self._network
        finally:
            self._network.train()

    @property
    def between_steps(self) -> bool:
        """Whether no gradient waits for others to be averaged with."""
        return self._accumulated == 0

    def state(self) -> State:
        """Return what is the same on all ranks: network, average, optimiser, steps. Copies on the CPU."""
        return {
            "steps": self.steps,
            "rate": self.rate,
            "network": copies(self._network.state_dict()),
            "averaged": self.averaged.state(),
            "optimizer": optimizer_state(self._optimizer),
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self.steps, self.rate = state["steps"], state["rate"]
        self._network.load_state_dict(dict(state["network"]))
        self.averaged.restore(state["averaged"])
        restore_optimizer(self._optimizer, state["optimizer"])

    def rank_state(self) -> State:
        """Return what this rank alone has: batch-norm statistics, torch's random state, gradients that wait."""
        state: dict[str, Any] = {"statistics": self.averaged.statistics(), "random_state": torch.get_rng_state()}
        if self._device.type == "cuda":
            state["cuda_random_state"] = torch.cuda.get_rng_state(self._device)
        if self._accumulated == 0:
            return state
        gradients = {str(i): one.grad for i, one in enumerate(self._network.parameters()) if one.grad is not None}
        return state | {"pending": {"minibatches": self._accumulated, "gradients": copies(gradients)}}

    def restore_rank(self, state: State, *, exact: bool) -> None:
        """Take over what one rank had; random numbers go on where they were only if there are as many ranks again.

        Nor do gradients that waited for others: with another number of ranks they are begun anew.
        """
        self.averaged.restore_all_statistics(state["statistics"])
        pending = state.get("pending")
        if exact:
            torch.set_rng_state(state["random_state"])
            if self._device.type == "cuda" and "cuda_random_state" in state:
                torch.cuda.set_rng_state(state["cuda_random_state"], self._device)
        if pending is not None and exact:
            self._accumulated = pending["minibatches"]
            parameters = list(self._network.parameters())
            for number, gradient in pending["gradients"].items():
                parameters[int(number)].grad = torch.empty_like(parameters[int(number)]).copy_(gradient)
        elif pending is not None:
            log.warning("other ranks than before: the gradients of %d minibatches are left out", pending["minibatches"])

    def _without_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Keep gradients on their rank; the exchange that completes the step takes them along."""
        if isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _add_gradient(self, share: Tensor) -> None:
        # DDP divides the sum of the ranks' gradients by their number.
        loss = share * (self._world_size / self._accumulate)
        # A loss that is not finite must show in the gradient, which all ranks share; clamped heads could hide it.
        torch.autograd.backward(loss, 1.0 + 0.0 * loss.detach())

    def _share(self, batch: Batch | None, strategy: Strategy, agreed: Agreed) -> Tensor:
        if batch is None:
            return self._share_of_nothing()
        with autocast(self._precision, self._device):
            output: Output = self._parallel(batch.inputs)
        strategy.after_forward(batch, output)
        return strategy.loss(batch, output, agreed)

    def _share_of_nothing(self) -> Tensor:
        """Take part in the gradient's reduction with zeros, and leave the batch-norm statistics alone."""
        self._network.eval()
        output: Output = self._parallel(self._nothing)
        self._network.train()
        return torch.stack([0.0 * head.sum() for head in output])

    def _gradient_is_finite(self) -> bool:
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        return bool(torch.nn.utils.get_total_norm(gradients).isfinite())

    def _step(self, finish: float) -> None:
        self.rate = self._schedule.rate(self.steps, finish)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.step()
        self.averaged.update()
        self.steps += 1
