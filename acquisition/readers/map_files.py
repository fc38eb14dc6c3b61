"""Read dataset maps, the user's and those that are shipped, and complete them by what the user has set.

A map may leave something open where a layout is ambiguous: its table `[ask]` names keys and the question of each, and
nothing is read before the user has given them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ptychoflow.acquisition.readers.dataset_map import DatasetMap
from ptychoflow.acquisition.source_settings import ShippedMap
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.mistaken_key import mistaken_key

SHIPPED = Path(__file__).with_name("maps")
ASK = "ask"


def load_dataset_map(source: ShippedMap | Path, changes: Mapping[str, Any] | None = None) -> DatasetMap:
    """Read a dataset map and apply `changes` (nested tables, as in the map) to it.

    Raises:
        UserError: it cannot be read, holds a mistake (the first one is named), or asks for what was not given.
    """
    path = SHIPPED / f"{source.value}.toml" if isinstance(source, ShippedMap) else source
    name = f"map {source.value}" if isinstance(source, ShippedMap) else str(path)
    content = _merged(_read(path, name), changes or {})
    open_questions = [
        f"{question}: say it with --set source.map_values.{key}=..."
        for key, question in _table(content.pop(ASK, {}), name).items()
        if _value_at(content, key) is None
    ]
    if open_questions:
        raise UserError(f"{name}: {'; '.join(open_questions)}")
    try:
        return DatasetMap.model_validate(content)
    except ValidationError as error:
        mistakes = [(".".join(mistaken_key(one, content)), one["msg"]) for one in error.errors()]
        first = mistakes[0][0]
        # what may be one of several, as a unit may, has a message from each
        said = [message for place, message in mistakes if place == first]
        messages = "; or: ".join(dict.fromkeys(said))
        raise UserError(f"{name}: mistake in the dataset map at {first or 'top level'}: {messages}") from error


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{name}: the dataset map cannot be read: {error.strerror}; "
            f"shipped ones are {', '.join(sorted(ShippedMap))}"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are no TOMLDecodeError
        raise UserError(f"{name}: the dataset map is not valid TOML: {error}") from error


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name}: mistake in the dataset map at {ASK}: this must be a table")
    return value


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in changes.items():
        before = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        merged[key] = _merged(before, value) if both and before is not None else value
    return merged


def _value_at(content: Mapping[str, Any], key: str) -> Any:
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
