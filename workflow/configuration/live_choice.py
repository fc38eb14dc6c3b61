"""Live sources as they are named on a command line: `KIND://HOST:PORT`, or `KIND://FOLDER` for those that are files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import ValidationError

from ptychoflow.acquisition.detectors.settings import LiveSourceSettings
from ptychoflow.acquisition.detectors.simulators import SimulatorSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings
from ptychoflow.workflow.configuration.errors import explain
from ptychoflow.workflow.configuration.layers import Layer, Table, merge, parse_assignments

IN_FOLDERS = frozenset(
    source.model_fields["kind"].default
    for source in get_args(LiveSourceSettings)
    if "folder" in source.model_fields and "host" not in source.model_fields
)
"""Kinds of sources that are files in a folder."""
SEARCHED_FOR = frozenset(
    source.model_fields["kind"].default for source in get_args(LiveSourceSettings) if "servers" in source.model_fields
)
"""Kinds of sources that may be on any of several servers."""


def live_options(detector: str | None, positions: str | None) -> Table:
    """Return the section [source] that live sources on a command line stand for; empty without any.

    Raises:
        UserError: one of them is not of the form KIND, KIND://HOST[:PORT] or KIND://FOLDER.
    """
    parts = {"frames": detector, "positions": positions}
    named = {name: _source(text) for name, text in parts.items() if text is not None}
    return {"source": {"kind": "live", **named}} if named else {}


class _Simulation(Settings):
    """Configuration of the command `detector`."""

    simulator: SimulatorSettings


def simulator_settings(source: str, assignments: Iterable[str]) -> SimulatorSettings:
    """Return the settings of what speaks like a source, from its name and from `--set simulator.KEY=VALUE`.

    Raises:
        UserError: one line that names every wrong key.
    """
    values, origins = merge(
        [Layer("the command line", {"simulator": _address(source)}), parse_assignments(assignments)]
    )
    try:
        return _Simulation.model_validate(values).simulator
    except ValidationError as error:
        raise explain(error, model=_Simulation, values=values, origins=origins) from None


def _source(text: str) -> dict[str, Any]:
    said = _address(text)
    if said["kind"] in SEARCHED_FOR and "host" in said:
        host, port = said.pop("host"), said.pop("port", None)
        said["servers"] = [host if port is None else f"{host}:{port}"]
    return said


def _address(text: str) -> dict[str, Any]:
    kind, _, folder = text.partition("://")
    if kind in IN_FOLDERS:
        return {"kind": kind, "folder": folder} if folder else {"kind": kind}
    try:
        parts = urlsplit(text if "://" in text else f"{text}://")
        said = {"kind": parts.scheme, "host": parts.hostname, "port": parts.port}
    except ValueError as error:
        raise UserError(f"{text!r} is no KIND://HOST[:PORT], such as dectris-v2://10.0.0.5: {error}") from None
    if parts.username is not None:
        raise UserError(f"{parts.scheme}://...@{parts.hostname}: a live source takes neither user nor password")
    if not parts.scheme or parts.path.strip("/") or parts.query:
        raise UserError(f"{text!r} is no KIND or KIND://HOST[:PORT], such as dectris-v2://10.0.0.5")
    return {name: value for name, value in said.items() if value is not None}
