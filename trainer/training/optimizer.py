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


def make_optimizer(
    settings: OptimizerSettings, network: nn.Module, *, rate: float, fused: bool = True
) -> torch.optim.Optimizer:
    """Return an optimiser of all the network's parameters; `fused`: its step is one operation."""
    parameters, decay = list(network.parameters()), settings.weight_decay
    match settings.kind:
        case OptimizerKind.ADAM:
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=fused)
        case OptimizerKind.SGD:
            sgd = torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=fused)
            if settings.momentum > 0.0:
                # PyTorch leaves them uninitialised where the first step is not made
                for parameter in parameters:
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
            return sgd


def step_if(made: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Make the optimiser's step where `made`, a bool on the device, is true; nothing waits for it."""
    optimizer.found_inf = (~made).to(torch.float32)  # type: ignore[attr-defined]  # what fused steps look at
    optimizer.step()


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
    groups = [group | {"fused": True} for group in state["groups"]]  # an earlier version's are not
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in _tensors(values).items():
            # in the parameter's memory layout: every step would pay for another
            if value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _tensors(values: dict[str, Any]) -> dict[str, Tensor]:
    """Leave out what an optimiser has not computed yet."""
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
