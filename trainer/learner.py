"""One optimiser step over all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.agreement import Agreed
from trainer.averaging import AveragedNetwork
from trainer.batch import Batch
from trainer.loss import PatchLoss
from trainer.models.frame_network import FrameNetwork
from trainer.models.precision import Precision, autocast
from trainer.models.ptychonn import Patches
from trainer.schedule import learning_rate
from trainer.settings import TrainerSettings
from trainer.strategies.strategy import Strategy


class Learner:
    """Holds the network, its optimiser and its moving average. Its constructor and `train` are collective.

    The network is replicated with DistributedDataParallel where there are several ranks; otherwise it is used as it is.

    Args:
        network: the same on all ranks, or rank 0's is taken.
        settings: rates, schedule, averaging.
        device: where the network is trained.
        precision: resolved by `Precision.on`.
    """

    def __init__(
        self, network: FrameNetwork, settings: TrainerSettings, *, device: torch.device, precision: Precision
    ) -> None:
        self.steps = 0
        self.rate = 0.0
        self._settings, self._device, self._precision = settings, device, precision
        self._network = network.to(device).to(memory_format=torch.channels_last).train()
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        self._parallel: nn.Module = self._network
        if self._world_size > 1:
            self._parallel = DistributedDataParallel(self._network, broadcast_buffers=False)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.learning_rate)
        self.averaged = AveragedNetwork(self._network, decay=settings.averaging)
        self._dark = torch.zeros(1, *network.config.frame_shape_px, device=device)

    def train(self, batch: Batch | None, strategy: Strategy, agreed: Agreed) -> PatchLoss | None:
        """Make one step down the loss that the strategy's shares on all ranks add up to.

        A rank without a batch has no share. If the gradient is not finite, which all ranks find alike because they
        share it, the weights stay as they are.

        Returns:
            This rank's share of the loss, or None if the step was skipped.
        """
        share = self._share(batch, strategy, agreed)
        # DDP divides the sum of the ranks' gradients by their number.
        loss = share.total * self._world_size
        self._optimizer.zero_grad()
        # A loss that is not finite must show in the gradient, which all ranks share; clamped heads could hide it.
        torch.autograd.backward(loss, 1.0 + 0.0 * loss.detach())
        if not self._gradient_is_finite():
            self.averaged.restore_statistics()
            return None
        self._step(agreed.finish)
        return share

    def _share(self, batch: Batch | None, strategy: Strategy, agreed: Agreed) -> PatchLoss:
        if batch is None:
            return self._share_of_nothing()
        with autocast(self._precision, self._device):
            output: Patches = self._parallel(batch.diffraction)
        strategy.after_forward(batch, output)
        return strategy.loss(batch, output, agreed)

    def _share_of_nothing(self) -> PatchLoss:
        """Take part in the gradient's reduction with zeros, and leave the batch-norm statistics alone."""
        self._network.eval()
        output: Patches = self._parallel(self._dark)
        self._network.train()
        return PatchLoss(amplitude=0.0 * output.amplitude.sum(), phase=0.0 * output.phase.sum())

    def _gradient_is_finite(self) -> bool:
        gradients = [parameter.grad for parameter in self._network.parameters() if parameter.grad is not None]
        return bool(torch.nn.utils.get_total_norm(gradients).isfinite())

    def _step(self, finish: float) -> None:
        self.rate = learning_rate(self._settings.schedule, self._settings.learning_rate, step=self.steps, finish=finish)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.step()
        self.averaged.update()
        self.steps += 1
