"""The training step that the benchmark runs the buffer beside: PtychoNN with distillation (DER++) on random data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

Tensors = dict[str, torch.Tensor]
TrainStep = Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor], Callable[[Tensors], None]], None]
"""Trains on a minibatch joined to representatives; before backward, offers the minibatch and its activations."""


class PtychoNN(nn.Module):
    """Encoder and two decoders of Cherukara et al. 2020; `width` 32 is the published network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *_pair(1, width), nn.MaxPool2d(2), *_pair(width, 2 * width), nn.MaxPool2d(2),
            *_pair(2 * width, 4 * width), nn.MaxPool2d(2),
        )  # fmt: skip
        self.amplitude = _decoder(width)
        self.phase = _decoder(width)

    def forward(self, diffraction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Amplitude and phase, each (n, 1, y, x)."""
        code = self.encoder(diffraction)
        return self.amplitude(code), self.phase(code)


def _pair(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip


def _decoder(width: int) -> nn.Sequential:
    def up() -> nn.Upsample:
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    return nn.Sequential(
        *_pair(4 * width, 4 * width), up(), *_pair(4 * width, 2 * width), up(), *_pair(2 * width, 2 * width), up(),
        nn.Conv2d(2 * width, 1, 3, padding=1),
    )  # fmt: skip


def make_train_step(width: int, device: torch.device) -> TrainStep:
    """A step on a network of that width, channels last, in bfloat16 where the device computes in it."""
    network = PtychoNN(width).to(device).to(memory_format=torch.channels_last)
    bfloat16 = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    optimizer = torch.optim.Adam(network.parameters(), lr=8.8e-4)

    def step(
        minibatch: Mapping[str, torch.Tensor],
        representatives: Mapping[str, torch.Tensor],
        offer: Callable[[Tensors], None],
    ) -> None:
        joined = {name: torch.cat([minibatch[name], representatives[name]]).float() for name in minibatch}
        stored = {name: representatives[name].float() for name in ("activation_amplitude", "activation_phase")}
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            amplitude, phase = network(joined["diffraction"].contiguous(memory_format=torch.channels_last))
        dtype = representatives["activation_phase"].dtype
        new = len(joined["phase"]) - len(stored["activation_phase"])
        activations = {"activation_amplitude": amplitude[:new].to(dtype), "activation_phase": phase[:new].to(dtype)}
        offer(dict(minibatch) | activations)
        loss = functional.l1_loss(amplitude, joined["amplitude"]) + functional.l1_loss(phase, joined["phase"])
        loss = loss + 0.8 * functional.mse_loss(amplitude[new:].float(), stored["activation_amplitude"])
        loss = loss + 0.8 * functional.mse_loss(phase[new:].float(), stored["activation_phase"])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
