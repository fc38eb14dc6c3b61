"""A folder with a short path that nobody but this user can enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RUNTIME_VARIABLE = "XDG_RUNTIME_DIR"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder (mode 0700) in XDG_RUNTIME_DIR, or where temporary files belong; remove it at the end."""
    runtime = os.environ.get(RUNTIME_VARIABLE, "")
    usable = bool(runtime) and os.access(runtime, os.W_OK | os.X_OK)
    folder = Path(tempfile.mkdtemp(prefix="ptychoflow-", dir=runtime if usable else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
