"""The weights file of a frame network: a `tensor_file` whose manifest says which network it holds.

Tensors: the state dict of the `FrameNetwork` under `network.`, and `constant.amplitude`, `constant.phase` float32
(target y, target x), the pixel-wise mean of the training targets so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import NetworkConfig
from ptychoflow.trainer.models.tensor_file import Stamp, Writer, empty_network, pack, unpack

NETWORK_PREFIX = "network."
CONSTANT_PREFIX = "constant."


class Manifest(Stamp):
    """What a weights file says about itself; its validation loss is L1 amplitude + L1 phase."""

    network: NetworkConfig


@dataclass(frozen=True)
class LoadedWeights:
    """A network in evaluation mode with what came along in its file."""

    manifest: Manifest
    network: FrameNetwork
    constant_amplitude: Tensor
    constant_phase: Tensor


def write_weights(network: FrameNetwork, manifest: Manifest, *, constant: Patches) -> bytes:
    """Return the file's bytes. Copies every tensor to the CPU; `constant` holds single (y, x) patches.

    Raises:
        ValueError: the manifest describes another network than `network`.
    """
    if manifest.network != network.config:
        raise ValueError("the manifest describes another network than the one to be written")
    tensors = {NETWORK_PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    tensors |= {CONSTANT_PREFIX + name: tensor.float() for name, tensor in constant._asdict().items()}
    return pack(tensors, manifest)


def weights_writer(network: FrameNetwork, constant: Patches) -> Writer:
    """Return what writes a network that nobody changes any more."""
    return lambda stamp: write_weights(
        network, Manifest(network=network.config, **stamp.model_dump()), constant=constant
    )


def read_weights(data: bytes, sha256: str | None = None) -> LoadedWeights:
    """Rebuild the network of a weights file.

    Args:
        data: the file's bytes; they are not trusted.
        sha256: the digest that they must have, if it is known.

    Raises:
        BadWeights: wrong digest, not a weights file, or tensors that do not fit the manifest's network exactly
            (missing, surplus, other shape or dtype, not finite).
    """
    manifest, tensors = unpack(data, sha256, kind=Manifest, expected=_expected)
    network = empty_network(lambda: FrameNetwork(manifest.network))
    state = {name.removeprefix(NETWORK_PREFIX): t for name, t in tensors.items() if name.startswith(NETWORK_PREFIX)}
    network.load_state_dict(state, assign=True)
    return LoadedWeights(
        manifest=manifest,
        network=network.eval(),
        constant_amplitude=tensors[CONSTANT_PREFIX + "amplitude"],
        constant_phase=tensors[CONSTANT_PREFIX + "phase"],
    )


def _expected(manifest: Manifest) -> dict[str, Tensor]:
    patch = torch.empty(manifest.network.target_shape_px, device="meta")
    state = empty_network(lambda: FrameNetwork(manifest.network)).state_dict()
    expected = {NETWORK_PREFIX + name: tensor for name, tensor in state.items()}
    return expected | {CONSTANT_PREFIX + name: patch for name in Patches._fields}
