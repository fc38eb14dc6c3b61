"""The folder of one run: made before anything starts, and claimed by whoever runs in it."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.streaming.durable_file import make_folder_durably, sync_names
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.workflow.configuration.config import AnyConfig, Config, write_config
from ptychoflow.workflow.environment import describe_environment
from ptychoflow.workflow.json_results import write_json

CLAIM_PATIENCE_S = 15.0
"""Longer than the parts of a killed run live on."""
CLAIM_POLL_S = 0.1


@contextmanager
def claimed(folder: RunFolder, patience_s: float = CLAIM_PATIENCE_S) -> Iterator[int]:
    """Keep others from running in a folder within the context; yields the file descriptor that does.

    The system ends it with the last process that holds the descriptor. Blocks while the parts of a killed run end.

    Raises:
        UserError: somebody else still runs in it after `patience_s`, or it cannot be written or locked.
    """
    deadline_s = time.monotonic() + patience_s
    with writing(folder.lock):
        file = folder.lock.open("ab")
    with file:
        while not _claim(file):
            if time.monotonic() > deadline_s:
                raise UserError(f"run {folder.path} is still going on; wait for its end, or stop it first")
            time.sleep(CLAIM_POLL_S)
        yield file.fileno()


def is_claimed(folder: RunFolder) -> bool:
    """Whether somebody runs in a folder.

    Raises:
        UserError: its lock cannot be opened.
    """
    try:
        file = folder.lock.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"cannot read {folder.lock}: {error.strerror}; check its permission") from error
    with file:
        try:
            # over NFS, only a shared lock can be had on a file that is open for reading alone
            return not _locked(file, fcntl.LOCK_SH)
        except OSError:  # nobody runs where nothing can be locked
            return False


def _claim(file: BinaryIO) -> bool:
    try:
        return _locked(file, fcntl.LOCK_EX)
    except OSError as error:
        raise UserError(
            f"cannot lock {file.name}: {error.strerror}; choose a folder on a file system that knows locks with "
            "--set run.directory=..."
        ) from error


def _locked(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_what_a_resume_needs(folder: RunFolder, config: AnyConfig) -> None:
    """Remove what only a run that goes on needs, of one that has ended well."""
    shutil.rmtree(folder.spool, ignore_errors=True)
    remove_unwanted_arrivals(folder, config)


def remove_unwanted_arrivals(folder: RunFolder, config: AnyConfig) -> None:
    """Remove what a detector sent in a run that has ended well, if the configuration wants it kept no longer."""
    if isinstance(config, Config) and isinstance(config.source, LiveSettings) and not config.source.keep_arrivals:
        shutil.rmtree(folder.arrivals, ignore_errors=True)


def create_run_folder(config: AnyConfig) -> RunFolder:
    """Make the folder of a new run with `config.toml` and `environment.json`.

    Raises:
        UserError: a run of this name exists, or the folder cannot be written.
    """
    folder = config.run.context().folder
    try:
        make_folder_durably(folder.path.parent)
        folder.path.mkdir()
        sync_names(folder.path.parent)
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
    """Write `config.toml` and `environment.json` into the folder.

    Raises:
        UserError: the disk does not take them.
    """
    with writing(f"the run folder {folder.path}"):
        write_config(config, folder.config)
        write_json(describe_environment() | {"seed": config.run.seed}, folder.environment)


def _exists_error(path: Path) -> UserError:
    if path.is_dir():
        return UserError(f"run {path} exists already; choose another --name")
    return UserError(f"cannot make the run folder {path}: a part of this path is a file")
