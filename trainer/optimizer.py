"""Makes the optimiser that the configuration names."""

from __future__ import annotations

import torch
from torch import nn

from trainer.settings import OptimizerKind, OptimizerSettings


def make_optimizer(settings: OptimizerSettings, network: nn.Module, *, rate: float) -> torch.optim.Optimizer:
    """Return an optimiser of all the network's parameters."""
    parameters, decay = network.parameters(), settings.weight_decay
    match settings.kind:
        case OptimizerKind.ADAM:
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case OptimizerKind.SGD:
            return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay)
