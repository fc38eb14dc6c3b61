"""Turns what pydantic says about a configuration into one line that names the key, its origin and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.mistaken_key import mistaken_key

SECRET_IN_ADDRESS = re.compile(r"(?<=://)[^/\s]+(?=@)|(?<=[?&])[^\s'\"]+(?=['\"])")


def explain(error: ValidationError, *, model: type[BaseModel], values: Any, origins: Mapping[str, str]) -> UserError:
    """Return one error that names every wrong key of `values`, which failed to become `model`.

    `origins` maps dotted keys to where they were set.
    """
    lines = [_explain_one(details, model=model, values=values, origins=origins) for details in error.errors()]
    return UserError("; ".join(dict.fromkeys(lines)))


def _explain_one(details: ErrorDetails, *, model: type[BaseModel], values: Any, origins: Mapping[str, str]) -> str:
    path = mistaken_key(details, values)
    key = ".".join(path)
    origin = _origin(path, origins)
    if details["type"] == "extra_forbidden":
        return f"unknown setting {key}{origin}{_suggestion(path, model, values)}"
    if details["type"] in ("union_tag_not_found", "union_tag_invalid"):
        return _explain_kind(details, key, origin)
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "missing":
        if isinstance(details["input"], dict):
            return _explain_missing(path, model, values)
        key, message = ".".join(path[:-1]), "give more values"  # a list is given as a whole
    if isinstance(details["input"], dict):
        return f"setting {key or 'file'}{origin} is wrong: {message}"
    return f"setting {key} = {_without_secrets(repr(details['input']))}{origin} is wrong: {message}"


def _without_secrets(text: str) -> str:
    """Leave out a password and what is asked for in an address: what is wrong is printed, and may be logged."""
    return SECRET_IN_ADDRESS.sub("…", text)


def _explain_kind(details: ErrorDetails, key: str, origin: str) -> str:
    context = details.get("ctx", {})
    name = str(context["discriminator"]).strip("'")
    if details["type"] == "union_tag_not_found":
        return f"setting {key}.{name} is missing{origin}: it says what the other keys of [{key}] mean"
    return f"setting {key}.{name} = {context['tag']!r}{origin} is wrong: use one of {context['expected_tags']}"


def _explain_missing(path: list[str], model: type[BaseModel], values: Any) -> str:
    key = ".".join(path)
    if not (sections := _models_at(path, model, values)):
        return f"setting {key} is missing: give it with --set {key}=... or in a --config file"
    given = " ".join(f"--set {key}.{name}=..." for name in _required_keys(sections))
    return f"section [{key}] is missing: give {given} or write it in a --config file"


def _required_keys(sections: list[type[BaseModel]]) -> list[str]:
    """Return the keys that a section must have; if it may be one of several, what says which."""
    if len(sections) == 1:
        return [name for name, field in sections[0].model_fields.items() if field.is_required()]
    first, *others = sections
    return [
        name
        for name, field in first.model_fields.items()
        if get_origin(field.annotation) is Literal and all(name in other.model_fields for other in others)
    ]


def _origin(path: list[str], origins: Mapping[str, str]) -> str:
    for length in range(len(path), 0, -1):
        origin = origins.get(".".join(path[:length]))
        if origin is not None:
            return f" (from {origin})"
    return ""


def _suggestion(path: list[str], model: type[BaseModel], values: Any) -> str:
    names = _valid_names(path[:-1], model, values)
    near = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {'.'.join([*path[:-1], near[0]])}?"
    return f"; valid here: {', '.join(sorted(names))}"


def _valid_names(path: list[str], model: type[BaseModel], values: Any) -> list[str]:
    return [name for found in _models_at(path, model, values) for name in found.model_fields]


def _models_at(path: list[str], model: type[BaseModel], values: Any) -> list[type[BaseModel]]:
    """Return what the section at `path` may be; empty if that is a plain value."""
    models = [model]
    here = values
    for name in path:
        here = here.get(name, {}) if isinstance(here, dict) else {}
        models = [found for parent in models for found in _models_of_field(parent, name)]
        models = _of_kind(models, here) or models
    return models


def _models_of_field(parent: type[BaseModel], name: str) -> list[type[BaseModel]]:
    field = parent.model_fields.get(name)
    return _models_in(field.annotation) if field else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _of_kind(models: list[type[BaseModel]], values: Any) -> list[type[BaseModel]]:
    kind = values.get("kind") if isinstance(values, dict) else None
    return [found for found in models if "kind" in found.model_fields and kind in _choices(found)]


def _choices(model: type[BaseModel]) -> tuple[Any, ...]:
    return get_args(model.model_fields["kind"].annotation)
