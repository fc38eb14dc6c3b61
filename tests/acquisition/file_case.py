"""A file, and what `ptychoflow inspect` must say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """A file and what must be said of it."""

    name: str
    write: Callable[[Path], list[Path]]
    """Writes it into an empty folder; returns what the command is given."""
    words: tuple[str, ...]
    refused: bool
    options: tuple[str, ...] = ()


def _options(settings: dict[str, Any]) -> tuple[str, ...]:
    return tuple(part for key, value in settings.items() for part in ("--set", f"source.{key}={json.dumps(value)}"))


def _case(
    name: str,
    write: Callable[[Path], Any],
    *words: str,
    refused: bool = False,
    orientation: bool = False,
    **settings: Any,
) -> Case:
    """A case whose writer returns one path or several; settings are those of [source], with `__` for a dot."""

    def written(folder: Path) -> list[Path]:
        found = write(folder)
        return found if isinstance(found, list) else [found]

    options = _options({key.replace("__", "."): value for key, value in settings.items()})
    if orientation:
        options += ("--orientation",)
    return Case(name, written, words, refused, options)


def answered(name: str, write: Callable[[Path], Any], *words: str, **settings: Any) -> Case:
    """A case that is described, these words among what is said."""
    return _case(name, write, *words, **settings)


def refused(name: str, write: Callable[[Path], Any], *words: str, **settings: Any) -> Case:
    """A case that is refused in one line, these words in it."""
    return _case(name, write, *words, refused=True, **settings)
