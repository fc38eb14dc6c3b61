"""Which key of given values an error of pydantic's is about."""

from __future__ import annotations

from typing import Any

from pydantic_core import ErrorDetails


def mistaken_key(details: ErrorDetails, values: Any) -> list[str]:
    """Return the steps to a wrong or missing key of `values`: pydantic's location without names of union members."""
    path: list[str] = []
    here, location = values, details["loc"]
    for position, step in enumerate(location):
        is_absent = position == len(location) - 1 and details["type"] == "missing"
        if isinstance(here, dict):
            if step not in here and not is_absent:
                continue
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int):
            here = here[step] if step < len(here) else None
        else:
            continue  # within a value that may be one of several
        path.append(str(step))
    return path
