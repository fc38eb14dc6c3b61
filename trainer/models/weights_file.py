"""The weights file: safetensors bytes whose manifest says which network they belong to.

Tensors: the state dict of the `FrameNetwork` under `network.`, and `constant.amplitude`, `constant.phase` float32
(target y, target x), the pixel-wise mean of the training targets so far. The metadata entry `manifest` is JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import safetensors.torch
import torch
from pydantic import NonNegativeInt, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from streaming.errors import UserError
from streaming.settings import Settings
from trainer.models.frame_network import FrameNetwork
from trainer.models.ptychonn import Patches
from trainer.models.settings import NetworkConfig

NETWORK_PREFIX = "network."
CONSTANT_PREFIX = "constant."
MAX_HEADER_BYTES = 1 << 20


class BadWeights(ValueError):
    """Weights that must not be used; the text gives the reason. Whoever holds older weights goes on with them."""


class Manifest(Settings):
    """What a weights file says about itself."""

    format: Literal[1] = 1
    version: NonNegativeInt
    step: NonNegativeInt
    network: NetworkConfig
    validation_loss: float | None
    """L1 amplitude + L1 phase, mean over the perspectives seen, at the last evaluation before this version."""
    final: bool
    created_at: datetime
    run: str


@dataclass(frozen=True)
class LoadedWeights:
    """A network in evaluation mode with what came along in its file."""

    manifest: Manifest
    network: FrameNetwork
    constant_amplitude: Tensor
    constant_phase: Tensor


def digest(data: bytes) -> str:
    """Return the SHA-256 of a weights file as hex."""
    return hashlib.sha256(data).hexdigest()


def write_weights(network: FrameNetwork, manifest: Manifest, *, constant: Patches) -> bytes:
    """Return the file's bytes. Copies every tensor to the CPU; `constant` holds single (y, x) patches.

    Raises:
        ValueError: the manifest describes another network than `network`.
    """
    if manifest.network != network.config:
        raise ValueError("the manifest describes another network than the one to be written")
    tensors = {NETWORK_PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    tensors |= {CONSTANT_PREFIX + name: tensor.float() for name, tensor in constant._asdict().items()}
    contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, metadata={"manifest": manifest.model_dump_json()})


def read_weights(data: bytes, sha256: str | None = None) -> LoadedWeights:
    """Rebuild the network of a weights file.

    Args:
        data: the file's bytes; they are not trusted.
        sha256: the digest that they must have, if it is known.

    Raises:
        BadWeights: wrong digest, not a weights file, or tensors that do not fit the manifest's network exactly
            (missing, surplus, other shape or dtype, not finite).
    """
    if sha256 is not None and digest(data) != sha256:
        raise BadWeights("SHA-256 differs from the announced one")
    manifest = _read_manifest(data)
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise BadWeights(f"not a safetensors file: {error}") from error
    network = _empty_network(manifest.network)
    _require(tensors, _expected(network))
    state = {name.removeprefix(NETWORK_PREFIX): t for name, t in tensors.items() if name.startswith(NETWORK_PREFIX)}
    network.load_state_dict(state, assign=True)
    return LoadedWeights(
        manifest=manifest,
        network=network.eval(),
        constant_amplitude=tensors[CONSTANT_PREFIX + "amplitude"],
        constant_phase=tensors[CONSTANT_PREFIX + "phase"],
    )


def _read_manifest(data: bytes) -> Manifest:
    header_bytes = int.from_bytes(data[:8], "little")
    if not 0 < header_bytes <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise BadWeights("not a safetensors file: its header length is wrong")
    try:
        header = json.loads(data[8 : 8 + header_bytes])
        return Manifest.model_validate_json(header["__metadata__"]["manifest"])
    except ValidationError as error:
        raise BadWeights(f"manifest: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadWeights(f"header without a readable manifest: {error!r}") from error


def _empty_network(config: NetworkConfig) -> FrameNetwork:
    # On the meta device a manifest that asks for a huge network costs no memory before its tensors are checked.
    try:
        with torch.device("meta"):
            return FrameNetwork(config)
    except UserError as error:
        raise BadWeights(str(error)) from error


def _expected(network: FrameNetwork) -> dict[str, Tensor]:
    patch = torch.empty(network.config.target_shape_px, device="meta")
    expected = {NETWORK_PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    return expected | {CONSTANT_PREFIX + name: patch for name in Patches._fields}


def _require(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if tensors.keys() != expected.keys():
        different = sorted(tensors.keys() ^ expected.keys())
        raise BadWeights(f"missing or surplus tensors: {', '.join(different[:4])}")
    for name, tensor in tensors.items():
        wanted = expected[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise BadWeights(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, the manifest's network needs "
                f"{wanted.dtype} {tuple(wanted.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise BadWeights(f"{name} holds values that are not finite")
