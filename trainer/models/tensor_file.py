"""What all weights files have in common: safetensors bytes whose metadata entry `manifest` says what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, TypeVar

import safetensors.torch
import torch
from pydantic import ConfigDict, NonNegativeInt, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.models.seal import is_broken, sealed

MAX_HEADER_BYTES = 1 << 20


class BadWeights(ValueError):
    """Weights that must not be used; the text gives the reason. Whoever holds older weights goes on with them."""


class Stamp(Settings):
    """What a weights file says about itself, whatever network it holds."""

    format: Literal[1] = 1
    version: NonNegativeInt
    step: NonNegativeInt
    validation_loss: float | None
    """At the last evaluation before this version, mean over the perspectives seen."""
    final: bool
    stopped: bool = False
    """Training was stopped before it was done: these are the last weights, but it may go on."""
    created_at: datetime
    run: str


class _AnyManifest(Stamp):
    model_config = ConfigDict(extra="ignore")


ManifestT = TypeVar("ManifestT", bound=Stamp)
NetworkT = TypeVar("NetworkT", bound=nn.Module)
Writer = Callable[[Stamp], bytes]
"""Makes the bytes of a weights file that carries a stamp."""


def digest(data: bytes) -> str:
    """Return the SHA-256 of a weights file as hex."""
    return hashlib.sha256(data).hexdigest()


def pack(tensors: Mapping[str, Tensor], manifest: Stamp) -> bytes:
    """Return the file's bytes. Copies every tensor to the CPU."""
    contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    data = safetensors.torch.save(contiguous, metadata={"manifest": manifest.model_dump_json()})
    return b"".join(sealed(data))


def unpack(
    data: bytes,
    sha256: str | None,
    *,
    kind: type[ManifestT],
    expected: Callable[[ManifestT], Mapping[str, Tensor]],
) -> tuple[ManifestT, dict[str, Tensor]]:
    """Return what a file holds.

    Args:
        data: the file's bytes; they are not trusted.
        sha256: the digest that they must have, if it is known.
        kind: of the manifest.
        expected: says what tensors a manifest promises; only their names, shapes and dtypes count.

    Raises:
        BadWeights: wrong digest, damaged, not a weights file, or tensors that are not exactly those expected (missing,
            surplus, other shape or dtype, not finite).
    """
    if sha256 is not None and digest(data) != sha256:
        raise BadWeights("SHA-256 differs from the announced one")
    manifest = _read_manifest(data, kind)
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise BadWeights(f"not a safetensors file: {error}") from error
    if sha256 is None and is_broken(data):
        raise BadWeights("the file is damaged: its SHA-256 differs from the one that it was written with")
    _require(tensors, expected(manifest))
    return manifest, tensors


def read_stamp(data: bytes) -> Stamp:
    """Return what a file says about itself, whatever network it holds.

    Raises:
        BadWeights: it is no weights file.
    """
    return _read_manifest(data, _AnyManifest)


def empty_network(make: Callable[[], NetworkT]) -> NetworkT:
    """Return a network without numbers: one that a manifest asks for costs no memory before its tensors are checked.

    Raises:
        BadWeights: there is no such network.
    """
    try:
        with torch.device("meta"):
            return make()
    except UserError as error:
        raise BadWeights(str(error)) from error


def _read_manifest(data: bytes, kind: type[ManifestT]) -> ManifestT:
    header_bytes = int.from_bytes(data[:8], "little")
    if not 0 < header_bytes <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise BadWeights("not a safetensors file: its header length is wrong")
    try:
        header = json.loads(data[8 : 8 + header_bytes])
        return kind.model_validate_json(header["__metadata__"]["manifest"])
    except ValidationError as error:
        raise BadWeights(f"manifest: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadWeights(f"header without a readable manifest: {error!r}") from error


def _require(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
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
