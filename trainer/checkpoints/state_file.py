"""Nested state as one safetensors file: tensors as they are, everything else as JSON in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ptychoflow.streaming.durable_file import durable_file
from ptychoflow.trainer.models.seal import sealed

State = Mapping[str, Any]
"""Nested mappings with text keys, whose leaves are tensors or JSON values."""

SEPARATOR = "/"
VALUES = "values"


class BadState(ValueError):
    """A file that holds no state; the text gives the reason."""


def write_state(state: State, path: Path) -> int:
    """Write a state to a file that appears only when it is whole and on the disk; return its bytes.

    Tensors must be on the CPU. Blocks for the disk; raises OSError if that takes no more.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    _flatten(state, "", tensors, values)
    data = safetensors.torch.save(tensors, metadata={VALUES: json.dumps(values)})
    with durable_file(path) as unfinished, unfinished.open("wb") as file:
        return sum(file.write(part) for part in sealed(data))


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def read_state(path: Path) -> State:
    """Open a state; a tensor is read from the file when it is asked for.

    Raises:
        BadState: the file was not written by `write_state`, or is damaged.
        OSError: it cannot be read.
    """
    try:
        file: Any = safe_open(path, framework="pt")
        values = json.loads((file.metadata() or {})[VALUES])
        return _View(file, values, frozenset(file.keys()), "")
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise BadState(f"{path} is not a state file: {error}") from error


def _flatten(state: State, prefix: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    for key, value in state.items():
        name = prefix + key
        if isinstance(value, Tensor):
            tensors[name] = value.detach().contiguous()
        elif isinstance(value, Mapping) and value:
            _flatten(value, name + SEPARATOR, tensors, values)
        else:
            values[name] = value


class _View(Mapping[str, Any]):
    """The part of a file below one prefix."""

    def __init__(self, file: Any, values: dict[str, Any], tensors: frozenset[str], prefix: str) -> None:
        self._file, self._values, self._tensors, self._prefix = file, values, tensors, prefix
        names = [name.removeprefix(prefix) for name in (*values, *tensors) if name.startswith(prefix)]
        self._keys = dict.fromkeys(sorted(name.partition(SEPARATOR)[0] for name in names))

    def __getitem__(self, key: str) -> Any:
        name = self._prefix + key
        if name in self._tensors:
            return self._file.get_tensor(name)
        if name in self._values:
            return self._values[name]
        if key in self._keys:
            return _View(self._file, self._values, self._tensors, name + SEPARATOR)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
