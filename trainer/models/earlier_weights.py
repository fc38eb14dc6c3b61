"""Start from the weights of an earlier run, whatever network they are of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.models.tensor_file import BadWeights


class Loaded(Protocol):
    """What is read from a weights file."""

    @property
    def manifest(self) -> Any:
        """Says in `network` which network it is."""
        ...

    @property
    def network(self) -> nn.Module:
        """Holds the weights."""
        ...


def load_earlier_weights(
    network: nn.Module, path: Path, *, config: Settings, read: Callable[[bytes], Loaded], advice: str
) -> None:
    """Load the weights file of an earlier run into a network; everything is replaced.

    Args:
        network: gets them.
        path: of the file.
        config: what fixes the network.
        read: rebuilds a network from a file's bytes.
        advice: what to set where the file is of another network.

    Raises:
        UserError: the file cannot be read or belongs to another network.
    """
    try:
        loaded = read(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read initial weights {path}: {error.strerror or error}") from error
    except BadWeights as error:
        raise UserError(f"initial weights {path} cannot be used: {error}") from error
    if loaded.manifest.network != config:
        apart = _apart(loaded.manifest.network.model_dump(mode="json"), config.model_dump(mode="json"))
        raise UserError(f"initial weights {path} belong to another network: {', '.join(apart)}; {advice}")
    network.load_state_dict(loaded.network.state_dict())


def _apart(theirs: Any, own: Any, name: str = "") -> list[str]:
    """Say in which fields two networks differ."""
    if isinstance(theirs, dict) and isinstance(own, dict):
        names = theirs.keys() | own.keys()
        return [
            said for one in sorted(names) for said in _apart(theirs.get(one), own.get(one), f"{name}.{one}".strip("."))
        ]
    return [] if theirs == own else [f"{name} is {theirs} in the file and {own} here"]
