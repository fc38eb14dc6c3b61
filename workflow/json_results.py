"""Writes what a benchmark or an experiment found where the user asked for it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.environment import describe_environment
from ptychoflow.workflow.logs import PROGRAM
from ptychoflow.workflow.run_folder import write_json


def write_results(results: dict[str, Any], json_file: Path | None) -> None:
    """Write JSON with the command and the environment to the file, if one was asked for.

    Raises:
        UserError: the file cannot be written.
    """
    if json_file is None:
        return
    content = {"command": shlex.join([PROGRAM, *sys.argv[1:]]), "environment": describe_environment(), **results}
    try:
        write_json(content, json_file)
    except OSError as error:
        raise UserError(f"cannot write {json_file}: {error.strerror}") from error
