"""Folders with a file for each frame, or for each part of a scan's frames."""

from __future__ import annotations

from pathlib import Path

from ptychoflow.acquisition.readers.natural import natural_order

FRAME_ENDINGS = (".tif", ".tiff", ".npy")


def files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files with one of `endings` in `folder`, in the order of the numbers in their names."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in endings and path.is_file()]
    return sorted(found, key=lambda path: natural_order(path.name))


def holds_frames(folder: Path) -> bool:
    """Whether files that may hold frames lie in `folder` itself."""
    return bool(files_in(folder, FRAME_ENDINGS))
