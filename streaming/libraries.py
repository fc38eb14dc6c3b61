"""Libraries that only some sources and outputs need."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ptychoflow.streaming.errors import UserError


@cache
def library(name: str, *, extra: str) -> Any:
    """Return a library that an extra of the project installs.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(name, extra) from error


def require_library(name: str, *, extra: str) -> None:
    """Raise `UserError` unless a library is installed; nothing is loaded.

    Args:
        name: without a dot.
        extra: of the project, which installs it.
    """
    if find_spec(name) is None:
        raise _missing(name, extra)


def _missing(name: str, extra: str) -> UserError:
    return UserError(f"{name}, which this needs, is not installed: pip install 'ptychoflow[{extra}]'")
