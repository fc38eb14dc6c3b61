"""Layers of configuration: nested tables from TOML files and options, merged in order, each key's origin kept."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.former_names import with_present_keys

Table = dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """One source of settings; `origin` names it for a person ("my.toml", "--set")."""

    origin: str
    values: Table


def read_layer(path: Path, *, origin: str | None = None) -> Layer:
    """Read a TOML file.

    Raises:
        UserError: the file is missing, not readable, or not TOML.
    """
    name = origin or str(path)
    try:
        return Layer(name, tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"configuration file {path} does not exist") from None
    except OSError as error:
        raise UserError(f"configuration file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are no TOMLDecodeError
        raise UserError(f"configuration file {path} is not valid TOML: {error}") from error


def parse_assignments(assignments: Iterable[str]) -> Layer:
    """Turn `section.key=value` texts into a layer; values follow TOML, and what is not TOML is a plain string.

    Raises:
        UserError: an assignment without a key or without `=`, or two that contradict each other.
    """
    values: Table = {}
    for text in assignments:
        key, separator, raw = text.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not separator or not all(names) or len(names) < 2:
            raise UserError(f"--set {text!r} is not of the form section.key=value, such as trainer.batch_size=16")
        _assign(values, names, _parse_value(raw.strip()))
    return Layer("--set", values)


def merge(layers: Iterable[Layer]) -> tuple[Table, dict[str, str]]:
    """Merge layers, later ones win; return the merged table and the origin of every dotted key.

    Keys under a former name count as if they had their present one.

    Tables merge key by key, except that a section of another `kind` than the last one named is left out: the settings
    of another kind of source do not apply. A section that names no kind always counts.
    """
    layers = [Layer(one.origin, with_present_keys(one.values, origin=one.origin)) for one in layers]
    kinds = {name: value["kind"] for layer in layers for name, value in layer.values.items() if _names_kind(value)}
    merged: Table = {}
    origins: dict[str, str] = {}
    for layer in layers:
        chosen = {
            name: value
            for name, value in layer.values.items()
            if not _names_kind(value) or value["kind"] == kinds[name]
        }
        _merge_into(merged, chosen)
        origins.update(dict.fromkeys(_dotted_keys(chosen), layer.origin))
    return merged, origins


def _assign(values: Table, names: list[str], value: Any) -> None:
    table = values
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {'.'.join(names)} contradicts another --set: {name} is already a plain value")
    table[names[-1]] = value


def _parse_value(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        return raw


def _merge_into(target: Table, extra: Mapping[str, Any]) -> None:
    for name, value in extra.items():
        if isinstance(value, dict):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            _merge_into(target[name], value)
        else:
            target[name] = value


def _names_kind(section: Any) -> bool:
    return isinstance(section, dict) and "kind" in section


def _dotted_keys(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _dotted_keys(value, f"{prefix}{name}.")
