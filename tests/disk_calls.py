"""The calls that bring something to the disk, as a test sees them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class DiskCalls:
    """Those of this process from now on, in order, with the names that they are for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str]] = []
        fsync, replace = os.fsync, os.replace

        def recorded_fsync(descriptor: int) -> None:
            self.seen.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
            fsync(descriptor)

        def recorded_replace(source: Path, target: Path) -> None:
            self.seen.append(("rename", Path(target).name))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "replace", recorded_replace)
