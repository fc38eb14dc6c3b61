"""Makes the optimiser that the configuration names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ptychoflow.trainer.checkpoints.state_file import State, copies
from ptychoflow.trainer.settings import OptimizerKind, OptimizerSettings


def load_optimizers() -> None:
    """Load what PyTorch loads with a first optimiser, 1 s and more, while there is nothing to train on yet."""
    torch.optim.SGD([torch.zeros(1)])


def make_optimizer(settings: OptimizerSettings, network: nn.Module, *, rate: float) -> torch.optim.Optimizer:
    """Return an optimiser of all the network's parameters."""
    parameters, decay = network.parameters(), settings.weight_decay
    match settings.kind:
        case OptimizerKind.ADAM:
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case OptimizerKind.SGD:
            return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay)


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Return the optimiser's state as nested text keys, copies on the CPU."""
    state = optimizer.state_dict()
    return {
        "moments": {str(number): copies(_tensors(values)) for number, values in state["state"].items()},
        "groups": state["param_groups"],
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Go on from what `optimizer_state` returned."""
    moments = {int(number): dict(tensors) for number, tensors in state["moments"].items()}
    optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
    for parameter, values in optimizer.state.items():
        for name, value in _tensors(values).items():
            # in the parameter's memory layout: every step would pay for another
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _tensors(values: dict[str, Any]) -> dict[str, Tensor]:
    """Leave out what an optimiser has not computed yet."""
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
