"""How a setting is given on the command line, for people to copy from a note or an error."""

from __future__ import annotations

import shlex


def set_option(key: str, value: object) -> str:
    """Return `--set KEY=VALUE`, quoted where a shell would make something else of it, as of brackets and spaces."""
    return f"--set {shlex.quote(f'{key}={value}')}"
