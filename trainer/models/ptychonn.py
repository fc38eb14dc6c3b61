"""PtychoNN: one convolutional encoder of a diffraction frame, one decoder for each image channel.

Sources: M. J. Cherukara et al., "AI-enabled high-resolution scanning coherent diffraction imaging",
Appl. Phys. Lett. 117, 044103 (2020), and for the phase-only edge model A. V. Babu et al., "Deep learning at the
edge enables real-time streaming ptychographic imaging", Nat. Commun. 14, 7059 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptychoflow.trainer.models.ptychonn_settings import Heads, ModelSettings, NetworkConfig, require_fit


class Patches(NamedTuple):
    """Amplitude and phase (radians) of object patches, float (n, y, x) each, or (y, x) for a single patch."""

    amplitude: Tensor
    phase: Tensor


class PtychoNN(nn.Module):
    """Encoder and decoders with their heads: `amplitude_scale`·sigmoid and π·tanh.

    A frame shrinks by 2 in each encoder level; the decoders double the image just as often as the target needs and
    crop to it centrally. So a 64 px target of a 128 px frame costs one decoder stage less than a 128 px target: a
    diffraction pattern has no spatial correspondence with the patch that the halved image could break.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        model = config.model
        doublings = _doublings(config)
        self.target_shape_px = config.target_shape_px
        self.amplitude_scale = config.amplitude_scale
        self.fold = nn.PixelUnshuffle(model.fold)
        self.encoder = _encoder(model)
        self.decoder1 = _decoder(model, doublings) if model.heads is Heads.BOTH else None
        self.decoder2 = _decoder(model, doublings)

    def forward(self, image: Tensor) -> Patches:
        """Map float (n, 1, y, x) to patches (n, target y, target x), float32 whatever the autocast type."""
        code = self.encoder(self.fold(image))
        phase = math.pi * torch.tanh(self._central(self.decoder2(code)))
        if self.decoder1 is None:
            return Patches(amplitude=torch.ones_like(phase), phase=phase)
        amplitude = self.amplitude_scale * torch.sigmoid(self._central(self.decoder1(code)))
        return Patches(amplitude=amplitude, phase=phase)

    def _central(self, image: Tensor) -> Tensor:
        height, width = self.target_shape_px
        top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
        return image[:, 0, top : top + height, left : left + width].float()


def original_model() -> ModelSettings:
    """Return the layout of the original PtychoNN (64 × 64 px, two decoders, 1,247,074 parameters)."""
    return ModelSettings(width=32, levels=3, decoder_floor=2, fold=1, batch_norm=False)


def edge_model() -> ModelSettings:
    """Return the layout of the published edge model (128 × 128 px, phase only, 733,921 parameters)."""
    return ModelSettings(width=16, levels=4, fold=1, batch_norm=False, heads=Heads.PHASE)


def _doublings(config: NetworkConfig) -> int:
    require_fit(config.model, config.frame_shape_px, config.target_shape_px)
    shrink = config.model.shrink
    sizes = zip(config.frame_shape_px, config.target_shape_px, strict=True)
    return max(0, *(math.ceil(math.log2(target / (frame // shrink))) for frame, target in sizes))


def _encoder(model: ModelSettings) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = model.fold**2
    for level in range(model.levels):
        layers += _convolution_pair(channels, model.width * 2**level, batch_norm=model.batch_norm)
        layers.append(nn.MaxPool2d(2))
        channels = model.width * 2**level
    return nn.Sequential(*layers)


def _decoder(model: ModelSettings, doublings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = model.width * 2 ** (model.levels - 1)
    for width in _decoder_widths(model, doublings):
        layers += _convolution_pair(channels, width, batch_norm=model.batch_norm)
        layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))


def _decoder_widths(model: ModelSettings, doublings: int) -> Sequence[int]:
    deepest = model.width * 2 ** (model.levels - 1)
    narrowest = min(deepest, model.decoder_floor * model.width)
    return [max(deepest // 2**stage, narrowest) for stage in range(doublings)]


def _convolution_pair(inputs: int, outputs: int, *, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return layers
