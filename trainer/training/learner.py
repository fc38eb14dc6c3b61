"""One optimiser step over all ranks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Generic

import torch
import torch.distributed as dist
from torch import Tensor

from ptychoflow.trainer.checkpoints.state_file import State, copies
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.pipeline import Output, Pipeline
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.settings import LearningSettings
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.averaging import AveragedNetwork, NetworkT
from ptychoflow.trainer.training.flat import flat_gradient
from ptychoflow.trainer.training.optimizer import FlatOptimizer
from ptychoflow.trainer.training.recorded_passes import RecordedPasses
from ptychoflow.trainer.training.schedule import Schedule
from ptychoflow.trainer.training.step_under_way import StepUnderWay

log = logging.getLogger(__name__)


class Learner(Generic[NetworkT]):
    """Holds the network, its optimiser and its moving average. Its constructor and `train` are collective.

    All weights lie in one piece of memory, and so do all gradients: one operation clears these, one says whether they
    are finite, one exchange adds them up over all ranks, and one makes the optimiser's step.

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
        self.rate = self._finish = 0.0
        self._schedule, self._device, self._precision = schedule, device, precision
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        if self._world_size > 1:
            for tensor in self._network.state_dict().values():
                dist.broadcast(tensor, src=0)
        self._accumulate, self._accumulated = settings.optimizer.accumulate, 0
        self.averaged = AveragedNetwork(self._network, decay=settings.averaging)
        parameters = list(self._network.parameters())
        self._gradient = flat_gradient(parameters)
        self._optimizer = FlatOptimizer(
            settings.optimizer,
            parameters,
            weights=self.averaged.source_weights,
            gradient=self._gradient,
            rate=settings.learning_rate,
        )
        self._had_samples = False
        """Whether this rank had any for the step that is due next."""
        self._nothing = torch.zeros(len(pipeline.activations), device=device)
        self._under_way: StepUnderWay | None = None
        self._recorded: RecordedPasses | None = None
        if settings.record_passes and device.type == "cuda":
            self._recorded = RecordedPasses(self._network, precision=precision, device=device)
        elif settings.record_passes:
            log.info("passes are not recorded: the network is trained on %s", device)

    def train(self, batch: Batch | None, strategy: Strategy, agreed: Agreed) -> Tensor | None:
        """Begin a step, and wait until it is known whether it was made; see `begin`.

        Returns:
            This rank's share of the loss, (terms,), or None if the step was skipped.
        """
        step = self.begin(batch, strategy, agreed)
        self.settle()
        return step.share if step.made else None

    def begin(self, batch: Batch | None, strategy: Strategy, agreed: Agreed) -> StepUnderWay:
        """Go down the loss that the strategy's shares on all ranks add up to; a GPU is not waited for.

        A rank without a batch has no share. The optimiser makes its step when as many gradients as the settings ask
        for have been averaged. If they are not finite, which all ranks find alike because they share them, the device
        leaves weights, moments and average as they are, and `steps` counts one too many until `settle`.
        """
        if self._accumulated == 0:
            self._gradient.zero_()
        self._finish = agreed.finish
        share = self._nothing if batch is None else self._share(batch, strategy, agreed)
        if batch is not None:
            self._add_gradient(share.sum())
            self._had_samples = True
        self._accumulated = (self._accumulated + 1) % self._accumulate
        if self._accumulated > 0:
            return StepUnderWay(share.detach(), made=None)
        self._under_way = StepUnderWay(share.detach(), self._step())
        return self._under_way

    def complete(self) -> StepUnderWay | None:
        """Make a step of the gradients that wait for others, if any do: there will be no others. Collective.

        Waits until it is known whether the step was made.
        """
        step: StepUnderWay | None = None
        if self._accumulated > 0:
            self._gradient.mul_(self._accumulate / self._accumulated)
            self._accumulated = 0
            step = self._under_way = StepUnderWay(self._nothing, self._step())
        self.settle()
        return step

    def settle(self) -> None:
        """Count the last step as none if it was skipped; waits until that is known."""
        if self._under_way is not None and not self._under_way.made:
            self.steps -= 1
            self.averaged.take_back()
        self._under_way = None

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
        self.settle()
        return {
            "steps": self.steps,
            "rate": self.rate,
            "network": copies(self._network.state_dict()),
            "averaged": self.averaged.state(),
            "optimizer": self._optimizer.state(),
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self.steps, self.rate = state["steps"], state["rate"]
        self._network.load_state_dict(dict(state["network"]))
        self.averaged.restore(state["averaged"])
        self._optimizer.restore(state["optimizer"])

    def rank_state(self) -> State:
        """Return what this rank alone has: batch-norm statistics, torch's random state, gradients that wait."""
        state: dict[str, Any] = {"statistics": self.averaged.statistics(), "random_state": torch.get_rng_state()}
        if self._device.type == "cuda":
            state["cuda_random_state"] = torch.cuda.get_rng_state(self._device)
        if self._accumulated == 0:
            return state
        gradients = {str(i): one.grad for i, one in enumerate(self._network.parameters()) if one.grad is not None}
        pending = {"minibatches": self._accumulated, "had_samples": self._had_samples, "gradients": copies(gradients)}
        return state | {"pending": pending}

    def restore_rank(self, state: State) -> None:
        """Take over what this rank had among as many ranks; random numbers go on where they were."""
        self.averaged.restore_all_statistics(state["statistics"])
        torch.set_rng_state(state["random_state"])
        if self._device.type == "cuda" and "cuda_random_state" in state:
            torch.cuda.set_rng_state(state["cuda_random_state"], self._device)
        if (pending := state.get("pending")) is not None:
            self._accumulated, self._had_samples = pending["minibatches"], pending.get("had_samples", True)
            parameters = list(self._network.parameters())
            for number, gradient in pending["gradients"].items():
                waiting = parameters[int(number)].grad
                assert waiting is not None  # noqa: S101  # part of the flat gradient
                waiting.copy_(gradient)

    def restore_other_ranks(self, states: Sequence[State]) -> None:
        """Take over what all ranks of another number had: the mean of their batch-norm statistics.

        Random numbers begin anew, and so do gradients that waited for others.
        """
        self.averaged.restore_mean_statistics([state["statistics"] for state in states])
        if (pending := states[0].get("pending")) is not None:
            log.warning("other ranks than before: the gradients of %d minibatches are left out", pending["minibatches"])

    def _add_gradient(self, share: Tensor) -> None:
        loss = share / self._accumulate
        # A loss that is not finite must show in the gradient, which all ranks share; clamped heads could hide it.
        torch.autograd.backward(loss, 1.0 + 0.0 * loss.detach())

    def _share(self, batch: Batch, strategy: Strategy, agreed: Agreed) -> Tensor:
        output = self._forward(batch.inputs)
        strategy.after_forward(batch, output)
        return strategy.loss(batch, output, agreed)

    def _forward(self, inputs: Tensor) -> Output:
        if len(inputs) == 1:
            # batch norm refuses one sample of one pixel; twice the same one has the mean and variance of it
            return tuple(head[:1] for head in self._forward(inputs.expand(2, *inputs.shape[1:])))
        if self._recorded is not None:
            return self._recorded(inputs)
        with autocast(self._precision, self._device):
            output: Output = self._network(inputs)
        return output

    def _step(self) -> Tensor:
        """Exchange gradients and make the step; return whether it is made, bool, on the device."""
        if self._world_size > 1:
            dist.all_reduce(self._gradient)
        self.settle()  # rate and average go by the steps that were made
        made: Tensor = torch.linalg.vector_norm(self._gradient).isfinite()
        self.rate = self._schedule.rate(self.steps, self._finish)
        self._optimizer.step_if(made, rate=self.rate)
        self.averaged.update(made, had_samples=self._had_samples)
        self._had_samples = False
        self.steps += 1
        return made
