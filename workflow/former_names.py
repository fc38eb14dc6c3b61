"""Names of commands, options and keys that have changed; the former ones are understood for one release.

A name leaves these tables one release after it changed.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

COMMANDS: Mapping[tuple[str, str], str] = {
    ("experiment", "imagenet"): "classification",
    ("bench", "images"): "classification",
}
"""A sub-command's new name, by its group and its former name."""
OPTION_VALUES: Mapping[tuple[str, str], str] = {
    ("--pipeline", "imagenet"): "classification",
    ("--preset", "images"): "classification",
}
"""An option's new value, by the option and its former value."""
KEYS: Mapping[str, str] = {}
"""A configuration key's or section's new place, by its former one; both dotted, such as `trainer.batch_size`."""


def with_present_names(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which every former name is replaced by the present one; each is told in the log."""
    present = list(arguments)
    for place, word in enumerate(present):
        before = present[place - 1] if place else ""
        option, separator, value = word.partition("=")
        if place == 1 and (before, word) in COMMANDS:
            present[place] = _told(word, COMMANDS[before, word])
        elif (before, word) in OPTION_VALUES:
            present[place] = _told(word, OPTION_VALUES[before, word])
        elif separator and (option, value) in OPTION_VALUES:
            present[place] = f"{option}={_told(value, OPTION_VALUES[option, value])}"
    return present


def with_present_keys(table: Mapping[str, Any], *, origin: str, keys: Mapping[str, str] = KEYS) -> dict[str, Any]:
    """Return a layer of configuration in which every former key stands at its present place; each is told in the log.

    Args:
        table: nested; not changed.
        origin: names the layer for a person.
        keys: the present key of each former one.

    Raises:
        UserError: the layer has a value under both names.
    """
    present: dict[str, Any] = copy.deepcopy(dict(table))
    for former, name in keys.items():
        value = _remove(present, former.split("."))
        if value is None:
            continue
        *sections, key = name.split(".")
        target = _made(present, sections)
        if target is None or key in target:
            raise UserError(f"{former} (from {origin}) is called {name} now, which is set as well: remove one of them")
        target[key] = value
        _tell_key(former, name, origin)
    return present


def _remove(table: dict[str, Any], path: Sequence[str]) -> Any:
    """Take out what stands at a place, and the sections that are empty without it; None where nothing stands."""
    name, *rest = path
    if not rest:
        return table.pop(name, None)
    inner = table.get(name)
    value = _remove(inner, rest) if isinstance(inner, dict) else None
    if value is not None and not inner:
        del table[name]
    return value


def _made(table: dict[str, Any], sections: Sequence[str]) -> dict[str, Any] | None:
    """Return a table in a table, made if need be; None where a plain value is in the way."""
    for name in sections:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            return None
    return table


@functools.cache
def _tell_key(former: str, present: str, origin: str) -> None:
    """Say it once; a configuration is read several times by some commands."""
    log.warning("%s (from %s) is called %s now; the former name goes with the next release", former, origin, present)


def _told(former: str, present: str) -> str:
    log.warning("'%s' is called '%s' now; the former name goes with the next release", former, present)
    return present
