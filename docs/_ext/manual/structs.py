"""Structs of msgspec as Markdown: one object each, with its fields."""

from __future__ import annotations

import typing
from typing import Any

import msgspec

from manual import docstrings
from manual.types import describe, value_text


def struct_reference(kind: str, cls: type[msgspec.Struct]) -> str:
    """Return a struct as an object of type `kind`, named by its tag."""
    tag = cls.__struct_config__.tag
    rows = [_field(cls, name, hint) for name, hint in typing.get_type_hints(cls, include_extras=True).items()]
    text = docstrings.of_class(cls)
    return "\n".join([f"::::{{{kind}}} {tag}\n", text, "", *rows, "::::", ""])


def _field(cls: type[msgspec.Struct], name: str, hint: Any) -> str:
    text = docstrings.of_attribute(cls, name)
    words = describe(hint)
    default = _default(cls, name)
    if isinstance(default, int | float | str | bool):
        words += f"; {value_text(default)} if left out"
    return f"- `{name}` – {words}{f'. {text}' if text else ''}"


def _default(cls: type[msgspec.Struct], name: str) -> Any:
    """Return a field's default; None if it has none, or a mutable one."""
    fields, defaults = cls.__struct_fields__, cls.__struct_defaults__
    place = fields.index(name) - (len(fields) - len(defaults))
    return defaults[place] if place >= 0 else None
