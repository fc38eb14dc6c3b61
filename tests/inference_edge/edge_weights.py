"""Weights files for tests of the edge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import torch

from ptychoflow.streaming.messages import Weights
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.models.weights_file import Manifest, write_weights


def network_of(version: int, *, frame_px: int = 32, target_px: int = 16, width: int = 2) -> FrameNetwork:
    torch.manual_seed(version)
    config = NetworkConfig(
        model=ModelSettings(width=width), frame_shape_px=(frame_px, frame_px), target_shape_px=(target_px, target_px)
    )
    return _settled(FrameNetwork(config))


def _settled(network: FrameNetwork) -> FrameNetwork:
    """Fit batch norm's statistics to some frames; without, what frames differ in is lost to rounding."""
    frames = torch.poisson(torch.full((16, *network.config.frame_shape_px), 5.0))
    with torch.no_grad():
        for _ in range(20):
            network.train()(frames)
    return network.eval()


def weights_file(
    version: int,
    *,
    final: bool = False,
    stopped: bool = False,
    spoil: Callable[[FrameNetwork], None] | None = None,
    **layout: int,
) -> bytes:
    network = network_of(version, **layout)
    if spoil is not None:
        spoil(network)
    manifest = Manifest(
        version=version,
        step=version,
        network=network.config,
        validation_loss=None,
        final=final,
        stopped=stopped,
        created_at=datetime.now(UTC),
        run="test",
    )
    shape = network.config.target_shape_px
    return write_weights(network, manifest, constant=Patches(amplitude=torch.ones(shape), phase=torch.zeros(shape)))


def announce(version: int, data: bytes, *, final: bool = False) -> tuple[Weights, bytes]:
    return Weights(version, hashlib.sha256(data).hexdigest(), step=version, final=final), data


def weights(version: int, *, final: bool = False) -> tuple[Weights, bytes]:
    return announce(version, weights_file(version, final=final), final=final)


def overflow(network: FrameNetwork) -> None:
    """Make finite tensors whose product is not, for any frame but a dark one."""
    network.input_scale.fill_(3e38)
    for parameter in network.parameters():
        parameter.data.mul_(1e30)
