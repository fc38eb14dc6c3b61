"""Makes the optimiser that the configuration names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ptychoflow.trainer.checkpoints.state_file import State, copies
from ptychoflow.trainer.settings import OptimizerKind, OptimizerSettings
from ptychoflow.trainer.training.flat import views

log = logging.getLogger(__name__)


def load_optimizers() -> None:
    """Load what PyTorch loads with a first optimiser, 1 s and more, while there is nothing to train on yet."""
    torch.optim.SGD([torch.zeros(1)])


def make_optimizer(
    settings: OptimizerSettings, parameters: Iterable[nn.Parameter], *, rate: float, fused: bool = True
) -> torch.optim.Optimizer:
    """Return an optimiser of `parameters`; `fused`: its step is one operation."""
    weights, decay = list(parameters), settings.weight_decay
    match settings.kind:
        case OptimizerKind.ADAM:
            return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=fused)
        case OptimizerKind.SGD:
            sgd = torch.optim.SGD(weights, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=fused)
            if settings.momentum > 0.0:
                # PyTorch leaves them uninitialised where the first step is not made
                for weight in weights:
                    sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight, requires_grad=False)
            return sgd


def _moments(settings: OptimizerSettings) -> frozenset[str]:
    """Return what PyTorch calls that which such an optimiser remembers of the steps before."""
    match settings.kind:
        case OptimizerKind.ADAM:
            return frozenset({"step", "exp_avg", "exp_avg_sq"})
        case OptimizerKind.SGD:
            return frozenset({"momentum_buffer"} if settings.momentum > 0.0 else ())


class FlatOptimizer:
    """An optimiser of parameters that lie in one piece of memory and are one to it: a step costs the same for many.

    Each element is treated as it would be in its own parameter, and the state is told by parameter.

    Args:
        settings: kind and figures.
        parameters: views of `weights`, as `flatten` makes them.
        weights: all parameters, (n,).
        gradient: theirs, as `flat_gradient` returns it.
        rate: to begin with.
    """

    def __init__(
        self,
        settings: OptimizerSettings,
        parameters: Sequence[nn.Parameter],
        *,
        weights: Tensor,
        gradient: Tensor,
        rate: float,
    ) -> None:
        self._parameters, self._moments = parameters, _moments(settings)
        self._weights = nn.Parameter(weights)
        self._weights.grad = gradient
        self._optimizer = make_optimizer(settings, [self._weights], rate=rate)

    def step_if(self, made: Tensor, *, rate: float) -> None:
        """Make a step where `made`, a bool on the device, is true; nothing waits for it."""
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.found_inf = (~made).to(torch.float32)  # type: ignore[attr-defined]  # what fused steps look at
        self._optimizer.step()

    def state(self) -> State:
        """Return the moments as nested text keys, copies on the CPU."""
        moments: dict[str, dict[str, Tensor]] = {}
        # an optimiser has not computed all of it before its first step
        for name, value in self._optimizer.state[self._weights].items():
            if isinstance(value, Tensor):
                for number, part in enumerate(self._by_parameter(value)):
                    moments.setdefault(str(number), {})[name] = part
        return {"moments": {number: copies(tensors) for number, tensors in moments.items()}}

    def restore(self, state: State) -> None:
        """Go on from the moments that `state` returned; figures are those of the settings.

        Moments of an optimiser of another kind are left out, which the log says: they begin anew.
        """
        saved = [state["moments"][str(number)] for number in range(len(state["moments"]))]
        if not saved or saved[0].keys() != self._moments:
            if saved and self._moments:
                log.warning("the optimiser is of another kind than the checkpoint's: its moments begin anew")
            return
        whole: dict[str, Tensor] = {}
        for name in saved[0]:
            values = [tensors[name] for tensors in saved]
            if values[0].shape == self._parameters[0].shape:
                whole[name] = torch.zeros_like(self._weights, requires_grad=False)
                for part, value in zip(views(whole[name], self._parameters), values, strict=True):
                    part.copy_(value)
            else:
                whole[name] = values[0]  # the same for all, such as the number of steps
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": {0: whole}, "param_groups": groups})

    def _by_parameter(self, value: Tensor) -> list[Tensor]:
        if value.shape == self._weights.shape:
            return views(value, self._parameters)
        return [value] * len(self._parameters)
