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
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")  # a pipe or a terminal, such as /dev/stdout
    else:
        write_durably(path, text)
