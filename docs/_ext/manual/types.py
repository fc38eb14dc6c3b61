"""Types, bounds and values as a person reads them in a reference."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import annotated_types
import msgspec

WORDS = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    bytes: "bytes",
    type(None): "nothing",
    Any: "any value",
}


def describe(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Return a type in words: `integer, at least 1`; literals and enumerations list their values."""
    bounds = list(metadata)
    while typing.get_origin(annotation) is typing.Annotated:
        bounds += annotation.__metadata__
        annotation = annotation.__origin__
    return ", ".join([_kind(annotation), *_bounds(bounds, whole=annotation is int)])


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union without None, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(member for member in typing.get_args(annotation) if member is not type(None))
    return (annotation,)


def value_text(value: Any) -> str:
    """Return a value as it is written in TOML; nothing for None."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(value_text(item) for item in value)}]"
    if isinstance(value, float) and value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        origin, arguments = typing.Literal, tuple(annotation)
    if origin in (typing.Union, types.UnionType):
        kind = _union(annotation)
    elif origin is typing.Literal:
        kind = " or ".join(f"`{value_text(value)}`" for value in arguments)
    elif origin is tuple:
        kind = _tuple(arguments)
    elif origin is list:
        kind = f"list of {describe(arguments[0])}"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        kind = f"{describe(arguments[1])} by {describe(arguments[0])}"
    else:
        kind = WORDS.get(annotation) or f"`{annotation.__name__}`"
    return kind


def _union(annotation: Any) -> str:
    kinds = " or ".join(describe(member) for member in members(annotation))
    return f"{kinds}; or nothing" if type(None) in typing.get_args(annotation) else kinds


def _tuple(arguments: tuple[Any, ...]) -> str:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"list of {describe(arguments[0])}"
    kinds = [describe(argument) for argument in arguments]
    if len(set(kinds)) == 1:
        return f"{len(kinds)} × {kinds[0]}"
    return f"[{', '.join(kinds)}]"


def _bounds(metadata: Iterable[Any], *, whole: bool) -> list[str]:
    words = []
    for item in _flat(metadata):
        for name, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
            limit = getattr(item, name, None)
            if limit is not None and name == "gt" and whole:
                words.append(f"at least {limit + 1:g}")
            elif limit is not None:
                words.append(f"{word} {limit:g}")
    return words


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for item in metadata:
        if isinstance(item, annotated_types.GroupedMetadata):
            yield from item
        elif isinstance(item, annotated_types.BaseMetadata | msgspec.Meta):
            yield item
        elif hasattr(item, "metadata"):
            yield from _flat(item.metadata)
