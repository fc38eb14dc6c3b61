"""Files and folders that appear only when they are whole and on the disk: a kill or a power cut leaves no half of one.

Whoever acknowledges something, or lets an older file go, does so after these functions have returned. One writer at a
time for each path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED_SUFFIX = ".part"
"""Of what is being written; one that a killed process has left is replaced by the next writer."""


def write_durably(path: Path, content: bytes | str) -> None:
    """Write a file; text as UTF-8. Blocks for the disk.

    Raises:
        OSError: the disk does not take it; a file that was there before is untouched.
    """
    with durable_file(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def durable_file(path: Path) -> Iterator[Path]:
    """Yield where to write what becomes `path` when the context ends; after an exception nothing of it is left.

    Raises:
        OSError: the disk does not take it; a file that was there before is untouched.
    """
    unfinished = path.with_name(path.name + UNFINISHED_SUFFIX)
    try:
        yield unfinished
        move_durably(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def move_durably(unfinished: Path, path: Path) -> None:
    """Give a file, or a folder with all that is in it, its name, once it is on the disk. Blocks for the disk.

    Args:
        unfinished: beside `path`; closed.
        path: a file that is there is replaced; a folder must not be there.

    Raises:
        OSError: the disk does not take it; `unfinished` stays where it is.
    """
    if unfinished.is_dir():
        for part in unfinished.rglob("*"):
            _sync(part)
    _sync(unfinished)
    # opened before: whoever sees the file may give the folder another name at once
    with _opened(path.parent) as folder:
        unfinished.replace(path)
        os.fsync(folder)


def make_folder_durably(path: Path) -> None:
    """Make a folder and those above it, as far as they are missing, so that what is written to it can be found again.

    Raises:
        OSError: the disk does not take it, or a file is in the way.
    """
    if not path.is_dir():
        make_folder_durably(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: those of files that grow under their own name, say.

    Raises:
        OSError: the disk does not take it.
    """
    _sync(folder)


def _sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
