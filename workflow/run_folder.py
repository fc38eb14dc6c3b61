"""The folder of one run: made before anything starts, and the names of what lies in it."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.config import AnyConfig, write_config
from ptychoflow.workflow.environment import describe_environment

LOCK = ".lock"
CLAIM_PATIENCE_S = 10.0
"""Longer than the parts of a killed run live on."""
CLAIM_POLL_S = 0.1


@dataclass(frozen=True)
class RunFolder:
    """Paths inside `runs/<name>/`."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration as resolved, ports included."""
        return self.path / "config.toml"

    @property
    def environment(self) -> Path:
        """Versions, host, git revision, seed."""
        return self.path / "environment.json"

    @property
    def telemetry(self) -> Path:
        """Every event of the run, one JSON object a line."""
        return self.path / "telemetry.jsonl"

    @property
    def summary(self) -> Path:
        """The run's result."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """What the trainer can go on from."""
        return self.path / "checkpoints"

    @property
    def spool(self) -> Path:
        """What the acquisition needs only until the run has ended well."""
        return self.path / "spool"

    @contextmanager
    def claimed(self, patience_s: float = CLAIM_PATIENCE_S) -> Iterator[int]:
        """Keep others from running in this folder within the context; yields the file descriptor that does.

        The system ends it with the last process that holds the descriptor. Blocks while the parts of a killed run end.

        Raises:
            UserError: somebody else still runs in it after `patience_s`.
        """
        deadline_s = time.monotonic() + patience_s
        with (self.path / LOCK).open("ab") as file:
            while not _locked(file):
                if time.monotonic() > deadline_s:
                    raise UserError(f"run {self.path} is still going on; wait for its end, or stop it first")
                time.sleep(CLAIM_POLL_S)
            yield file.fileno()

    @property
    def going_on(self) -> bool:
        """Whether somebody has claimed it."""
        lock = self.path / LOCK
        if not lock.exists():
            return False
        with lock.open("rb") as file:
            return not _locked(file)

    def log(self, name: str) -> Path:
        """Return the log of one part."""
        return self.path / "logs" / f"{name}.log"


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def create_run_folder(config: AnyConfig) -> RunFolder:
    """Make the folder of a new run with `config.toml` and `environment.json`.

    Raises:
        UserError: a run of this name exists, or the folder cannot be written.
    """
    folder = RunFolder(config.run.context().directory)
    try:
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        folder.path.mkdir()
        folder.log("launcher").parent.mkdir()
        describe_run(config, folder)
    except FileExistsError:
        raise _exists_error(folder.path) from None
    except OSError as error:
        raise UserError(
            f"cannot write the run folder {folder.path}: {error.strerror}; choose another with --set run.directory=..."
        ) from error
    return folder


def describe_run(config: AnyConfig, folder: RunFolder) -> None:
    """Write `config.toml` and `environment.json` into the folder."""
    write_config(config, folder.config)
    write_json(describe_environment() | {"seed": config.run.seed}, folder.environment)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write plain JSON values, indented."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _exists_error(path: Path) -> UserError:
    if path.is_dir():
        return UserError(f"run {path} exists already; choose another --name")
    return UserError(f"cannot make the run folder {path}: a part of this path is a file")
