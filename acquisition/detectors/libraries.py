"""Libraries that only some sources need."""

from __future__ import annotations

from functools import cache
from importlib import import_module
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
        raise UserError(
            f"{name}, which this source needs, is not installed: pip install 'ptychoflow[{extra}]'"
        ) from error
