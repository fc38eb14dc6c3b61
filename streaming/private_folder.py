"""A folder with a short path that nobody but this user can enter."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychoflow.streaming.errors import UserError, writing

RUNTIME_VARIABLE = "XDG_RUNTIME_DIR"
SHORT = "/tmp"  # noqa: S108 the folder made in it is of this user alone
PREFIX, SUFFIX = "ptychoflow-", ".made"
MADE = re.compile(PREFIX + "[a-z0-9_]{8}" + re.escape(SUFFIX))
MARKER = ".made-by-ptychoflow"
"""File in it that tells it from a folder to which somebody gave such a name."""
LONGEST = 60
"""Characters of the folder in which it is made: the path of a socket may have 107."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder (mode 0700) in XDG_RUNTIME_DIR, or where temporary files belong; remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=_place()))
    try:
        (folder / MARKER).touch()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_made_by_us(folder: Path) -> bool:
    """Whether `private_folder` has made a folder; of one that is gone, its name tells."""
    return MADE.fullmatch(folder.name) is not None and (not folder.exists() or (folder / MARKER).exists())


def require_private(folder: Path) -> None:
    """Make a folder that only this user can enter, if there is none.

    Raises:
        UserError: it belongs to somebody else, others can enter it, or it cannot be made.
    """
    with writing(f"the folder {folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    if status.st_uid != os.geteuid():
        raise UserError(f"{folder} belongs to another user: name a folder of your own in network.sockets_dir")
    if status.st_mode & 0o077:
        raise UserError(f"other users can enter {folder}: chmod 700 {folder}")


def _place() -> str:
    runtime = os.environ.get(RUNTIME_VARIABLE, "")
    usable = bool(runtime) and os.access(runtime, os.W_OK | os.X_OK)
    place = runtime if usable else tempfile.gettempdir()
    return place if len(place) <= LONGEST else SHORT
