"""The frames of perspectives, kept in the run's spool by the acquisition for who hands whole scans over.

They lie on disk already: a second name keeps them there, so that nothing is copied and nobody waits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.durable_file import UNFINISHED_SUFFIX, make_folder_durably, move_durably
from ptychoflow.streaming.frame_memory import map_frames

KEPT_AT_ONCE = 8
ABOUT, FRAMES = "about.json", "frames"
Array = npt.NDArray[Any]


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What there is to say of a kept perspective; pairs are (y, x)."""

    perspective: int
    angle_deg: float
    energy_eV: float
    detector_distance_m: float
    detector_pixel_size_m: tuple[float, float]
    object_pixel_size_m: tuple[float, float]
    stored_shape: tuple[int, int, int]
    """Of the array in the file of frames."""
    stored_dtype: str


@dataclass(frozen=True)
class KeptPerspective:
    """A perspective whose frames have all come; arrays have one row per usable frame.

    Raises:
        OSError: it has been let go of.
    """

    folder: Path
    about: About
    indices: npt.NDArray[np.int32]
    positions_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""
    places: npt.NDArray[np.int64]
    """Where in the file each frame lies."""
    probe: npt.NDArray[np.complex64] | None
    """(mode, y, x)."""
    mask: npt.NDArray[np.bool_] | None
    """(y, x), True for pixels that must be ignored."""

    @property
    def frames(self) -> Path:
        """Raw pixels of the frames; absent when they have been let go of."""
        return self.folder / FRAMES

    def stored(self) -> Array:
        """Return the frames in the order of the file, (m, y, x), mapped read-only.

        Raises:
            OSError: they have been let go of.
        """
        return map_frames(self.frames, self.about.stored_shape, self.about.stored_dtype)


def keep_perspective(folder: Path, about: About, frames: Path, arrays: Mapping[str, Array | None]) -> list[int]:
    """Keep a perspective until it is handed over, and let the oldest go of those that nobody has taken.

    Blocks for the disk.

    Args:
        folder: of all kept perspectives; made if need be.
        about: the perspective.
        frames: file of its frames, on the same disk.
        arrays: those of `KeptPerspective`, by name.

    Returns:
        The perspectives that were let go of with their frames.

    Raises:
        OSError: the disk does not take it, or has no second names.
    """
    place = folder / f"{about.perspective:04d}"
    unfinished = place.with_suffix(UNFINISHED_SUFFIX)
    for leftover in (unfinished, place):
        shutil.rmtree(leftover, ignore_errors=True)
    make_folder_durably(folder)
    unfinished.mkdir()
    os.link(frames, unfinished / FRAMES)
    for name, array in arrays.items():
        if array is not None:
            np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
    (unfinished / ABOUT).write_bytes(msgspec.json.encode(about))
    move_durably(unfinished, place)
    return _let_go(folder)


def kept_perspectives(folder: Path) -> list[Path]:
    """Return the folders of those that are kept, oldest first."""
    return sorted((path.parent for path in folder.glob(f"*[0-9]/{ABOUT}")), key=lambda kept: int(kept.name))


def read_kept(folder: Path) -> KeptPerspective:
    """Return a kept perspective.

    Raises:
        OSError: it has been let go of.
    """
    about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    indices, positions_px, places = (_load(folder / f"{name}.npy") for name in ("indices", "positions_px", "places"))
    probe, mask = (_load(path) if (path := folder / f"{name}.npy").exists() else None for name in ("probe", "mask"))
    return KeptPerspective(folder, about, indices, positions_px, places, probe, mask)


def _load(path: Path) -> Array:
    array: Array = np.load(path, allow_pickle=False)
    return array


def _let_go(folder: Path) -> list[int]:
    lost = []
    for oldest in kept_perspectives(folder)[:-KEPT_AT_ONCE]:
        if (oldest / FRAMES).exists():
            lost.append(int(oldest.name))
        shutil.rmtree(oldest, ignore_errors=True)
    return lost
