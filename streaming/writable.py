"""Whether a folder that is made later can be made and written, found out before."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ptychoflow.streaming.errors import writing


def nearest_existing(path: Path) -> Path:
    """Return a path itself, or the nearest above it that is there, whatever it is."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if os.path.lexists(one))


def require_writable(folder: Path) -> None:
    """Write a file into a folder, or where it would be made, and remove it.

    Raises:
        UserError: the folder cannot be made or written.
    """
    with writing(folder), tempfile.TemporaryFile(dir=nearest_existing(folder)):
        pass
