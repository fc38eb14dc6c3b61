"""Results as JSON files: what a benchmark or an experiment found, where the user asked for it, and those of runs."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.errors import writing
from ptychoflow.workflow.environment import describe_environment
from ptychoflow.workflow.logs import PROGRAM


def write_results(results: dict[str, Any], json_file: Path | None) -> None:
    """Write JSON with the command and the environment to the file, if one was asked for.

    Raises:
        UserError: the file cannot be written.
    """
    if json_file is None:
        return
    content = {"command": shlex.join([PROGRAM, *sys.argv[1:]]), "environment": describe_environment(), **results}
    with writing(json_file):
        write_json(content, json_file)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write plain JSON values, indented; a file is whole at any time. Raises OSError."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if is_ordinary(path):
        write_durably(path, text)
        return
    sys.stdout.flush()
    with path.open("a", encoding="utf-8") as stream:  # behind what was printed, where that goes to the same file
        stream.write(text)


def is_ordinary(path: Path) -> bool:
    """Whether a path stands for a file that can be written again and have others beside it; /dev/stdout does not."""
    place = path.parent.resolve()
    if place == Path("/dev") or place.is_relative_to("/proc"):
        return False  # also where output goes to a file: its name here must not be replaced
    return path.is_file() or not path.exists()
