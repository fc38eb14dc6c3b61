"""Where the run's folder will be: writable, lockable, with room."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator

from ptychoflow.streaming.settings import RunContext
from ptychoflow.streaming.writable import nearest_existing
from ptychoflow.workflow.doctor.finding import Finding, green, red, yellow

LITTLE_GIB, TOO_LITTLE_GIB = 10.0, 1.0
GIB = 1 << 30


def look_at_disk(run: RunContext) -> Iterator[Finding]:
    """Yield whether the run's folder can be written, and how much room there is."""
    place = nearest_existing(run.folder.path)
    try:
        with tempfile.NamedTemporaryFile(dir=place) as probe:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        yield red("disk", f"{place} cannot be written: {error.strerror}; choose another with --set run.directory=...")
        return
    free_gib = shutil.disk_usage(place).free / GIB
    said = f"{free_gib:.1f} GiB free in {place}"
    if free_gib < TOO_LITTLE_GIB:
        yield red("disk", f"{said}: make room, or choose another with --set run.directory=...")
    elif free_gib < LITTLE_GIB:
        yield yellow("disk", f"{said}: checkpoints and images of a long scan need more")
    else:
        yield green("disk", said)
