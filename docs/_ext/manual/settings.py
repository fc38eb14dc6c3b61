"""The reference of the configuration, from the settings' docstrings, types and defaults."""

from __future__ import annotations

import typing
from enum import Enum
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from manual import docstrings
from manual.types import describe, members, value_text
from ptychoflow.acquisition.readers.dataset_map import DatasetMap
from ptychoflow.streaming.settings import Settings
from ptychoflow.workflow.configuration.config import ClassificationConfig, Config
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.ptychography.settings import PtychographyExperiment


def scan_reference() -> str:
    """Return every key of a run on a scan."""
    return _Reference(set()).of_config(Config)


def classification_reference() -> str:
    """Return the keys of a run on labelled images that a run on a scan does not have, or has with another default."""
    return _Reference(keys_of(Config)).of_config(ClassificationConfig, beside=Config)


def experiment_reference() -> str:
    """Return what configures experiments beyond what configures runs."""
    known = keys_of(Config) | keys_of(ClassificationConfig)
    reference = _Reference(known)
    parts = [
        "## `ptychoflow experiment ptychography`\n",
        reference.of_config(PtychographyExperiment, beside=Config, level=3),
        "## `ptychoflow experiment classification`\n",
        reference.of_config(ClassificationExperiment, beside=ClassificationConfig, level=3),
    ]
    return "\n".join(parts)


def dataset_map_reference() -> str:
    """Return every key of a dataset map, which is a file of its own: nothing of it is a setting of a run."""
    return _Reference(keys_of(DatasetMap)).of_config(DatasetMap)


SECTIONS = ("run", "source", "acquisition", "retrieval", "trainer", "edge", "dashboard", "outputs", "network")
"""In the order in which frames pass them; others follow."""


class _Reference:
    """Writes sections and keys as Markdown; a key is an object to link to the first time it is described."""

    def __init__(self, known: set[str]) -> None:
        self._known = set(known)

    def of_config(self, config: type[Settings], *, beside: type[Settings] | None = None, level: int = 2) -> str:
        parts = []
        for name, field in sorted(config.model_fields.items(), key=lambda item: _place(item[0])):
            same = beside is not None and name in beside.model_fields and _same(field, beside.model_fields[name])
            if not same:
                parts.append(self._section(name, field, docstrings.of_attribute(config, name), level))
        return "\n".join(parts)

    def _section(self, path: str, field: FieldInfo, text: str, level: int) -> str:
        kinds = [member for member in members(field.annotation) if _is_settings(member)]
        if not kinds:
            kinds = [argument for argument in typing.get_args(field.annotation) if _is_settings(argument)]
        parts = [f"{'#' * level} `[{path}]`\n", text, ""]
        for kind in kinds:
            if len(kinds) > 1:
                parts.append(f"{'#' * (level + 1)} `[{path}]` with `{_told_by(kind)}`\n")
            parts += [docstrings.of_class(kind), "", self._keys_of(kind, path, level + (len(kinds) > 1))]
        return "\n".join(parts)

    def _keys_of(self, cls: type[Settings], path: str, level: int) -> str:
        plain, sections = [], []
        for name, field in cls.model_fields.items():
            dotted, text = f"{path}.{name}", docstrings.of_attribute(cls, name)
            if _nested(field):
                sections.append(self._section(dotted, field, text, level + 1))
            else:
                plain.append(self._key(dotted, field, text))
        return "\n".join([*plain, *sections])

    def _key(self, dotted: str, field: FieldInfo, text: str) -> str:
        described = f"::::{{setting}} {dotted} = {_default(field)}{_kind(field)}\n"
        if dotted in self._known:
            described += ":no-index:\n"
        self._known.add(dotted)
        return "\n".join([described, text, "", _values(field), "::::", ""])


def _values(field: FieldInfo) -> str:
    """Say what the values of an enumeration mean, where its members have docstrings."""
    rows = []
    for kind in members(field.annotation):
        if isinstance(kind, type) and issubclass(kind, Enum):
            for member in kind:
                meaning = docstrings.of_attribute(kind, member.name)
                if meaning:
                    rows.append(f"- `{value_text(member)}`: {meaning}")
    return "\n".join([*rows, ""]) if rows else ""


def keys_of(config: type[Settings], prefix: str = "") -> set[str]:
    """Return every key, as `section.key`."""
    keys: set[str] = set()
    for name, field in config.model_fields.items():
        dotted = f"{prefix}{name}"
        nested = _nested(field) or [member for member in members(field.annotation) if _is_settings(member)]
        for kind in nested:
            keys |= keys_of(kind, f"{dotted}.")
        if not nested:
            keys.add(dotted)
    return keys


def _nested(field: FieldInfo) -> list[type[Settings]]:
    """Return the sections that a field is, or is a list of."""
    direct = [member for member in members(field.annotation) if _is_settings(member)]
    return direct or [argument for argument in typing.get_args(field.annotation) if _is_settings(argument)]


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _told_by(cls: type[Settings]) -> str:
    """Return the key that tells one kind of section from others, with its value: the first that has one value only."""
    for name, field in cls.model_fields.items():
        if typing.get_args(field.annotation) == (field.default,):
            return f"{name} = {value_text(field.default)}"
    raise ValueError(f"{cls.__name__}: no key tells it from others")


def _place(section: str) -> int:
    return SECTIONS.index(section) if section in SECTIONS else len(SECTIONS)


def _same(one: FieldInfo, other: FieldInfo) -> bool:
    return one.annotation == other.annotation


def _kind(field: FieldInfo) -> str:
    """Return the type; none for a key that has one value only. That it may be left out, the default says."""
    kinds = members(field.annotation)
    if field.default is not PydanticUndefined and typing.get_args(kinds[0]) == (field.default,):
        return ""
    return f" :: {' or '.join(describe(kind, field.metadata) for kind in kinds)}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if field.default_factory is dict:
        return "empty"
    if field.default_factory is not None:
        return "chosen at the start"
    if field.default is None or field.default is PydanticUndefined:
        return "not set"
    return value_text(field.default)
