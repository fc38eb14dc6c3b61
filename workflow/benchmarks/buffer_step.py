"""The training step that the benchmark runs the buffer beside: PtychoNN with distillation (DER++) on random data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

from ptychoflow.trainer.models.arithmetic import autocast, resolve
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import PtychoNN, original_model
from ptychoflow.trainer.models.ptychonn_settings import NetworkConfig

Tensors = dict[str, torch.Tensor]
TrainStep = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor], Callable[[Tensors], None]], None]
"""Trains on a minibatch joined to representatives; before backward, offers the minibatch and its activations."""


def make_train_step(width: int, device: torch.device, *, pixels: int) -> TrainStep:
    """Return a step on the original PtychoNN in another width, channels last, in the precision that suits the device.

    Args:
        width: 32 is the published network.
        device: where it is trained.
        pixels: frames and patches are this wide and high.
    """
    model = original_model().model_copy(update={"width": width})
    shape = (pixels, pixels)
    network = PtychoNN(NetworkConfig(model=model, frame_shape_px=shape, target_shape_px=shape))
    network = network.to(device).to(memory_format=torch.channels_last)
    precision = resolve(Precision.AUTO, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=8.8e-4)

    def step(
        minibatch: Mapping[str, torch.Tensor],
        representatives: Mapping[str, torch.Tensor],
        offer: Callable[[Tensors], None],
    ) -> None:
        joined = {name: torch.cat([minibatch[name], representatives[name]]).float() for name in minibatch}
        stored = {name: representatives[name].float() for name in ("activation_amplitude", "activation_phase")}
        with autocast(precision, device):
            patches = network(joined["diffraction"].contiguous(memory_format=torch.channels_last))
        amplitude, phase = patches.amplitude.unsqueeze(1), patches.phase.unsqueeze(1)
        dtype = representatives["activation_phase"].dtype
        new = len(joined["phase"]) - len(stored["activation_phase"])
        activations = {"activation_amplitude": amplitude[:new].to(dtype), "activation_phase": phase[:new].to(dtype)}
        offer(dict(minibatch) | activations)
        loss = functional.l1_loss(amplitude, joined["amplitude"]) + functional.l1_loss(phase, joined["phase"])
        loss = loss + 0.8 * functional.mse_loss(amplitude[new:], stored["activation_amplitude"])
        loss = loss + 0.8 * functional.mse_loss(phase[new:], stored["activation_phase"])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step
