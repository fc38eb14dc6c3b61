"""Writes what a benchmark or an experiment found where the user asked for it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.errors import UserError
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
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        if json_file.exists() and not json_file.is_file():
            json_file.write_text(text, encoding="utf-8")  # a pipe or a terminal, such as /dev/stdout
        else:
            write_durably(json_file, text)
    except OSError as error:
        raise UserError(f"cannot write {json_file}: {error.strerror}") from error
