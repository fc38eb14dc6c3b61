"""The frames of perspectives, kept in the run's spool by the acquisition for who hands whole scans over.

They lie on disk already: a second name keeps them there, so that nothing is copied and nobody waits.
"""

from __future__ import annotations

import math
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
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.frame_memory import map_frames
from ptychoflow.streaming.kept_array import read_array
from ptychoflow.streaming.kept_struct import read_kept as read_struct

KEPT_AT_ONCE = 8
ADVICE = "remove its folder; it is not handed over"
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
        UserError: a file is damaged.
    """
    about = read_struct(folder / ABOUT, About, advice=ADVICE)
    indices, positions_px, places = (_load(folder, name) for name in ("indices", "positions_px", "places"))
    probe, mask = (_load(folder, name) if (folder / f"{name}.npy").exists() else None for name in ("probe", "mask"))
    kept = KeptPerspective(folder, about, indices, positions_px, places, probe, mask)
    if not _fits_together(kept):
        raise UserError(f"{folder} is damaged: what it holds does not fit together; {ADVICE}")
    return kept


def _load(folder: Path, name: str) -> Array:
    return read_array(folder / f"{name}.npy", advice=ADVICE)


def _fits_together(kept: KeptPerspective) -> bool:
    frames, *shape_px = kept.about.stored_shape
    try:
        dtype = np.dtype(kept.about.stored_dtype)
        whole = kept.frames.stat().st_size >= math.prod(kept.about.stored_shape) * dtype.itemsize
    except FileNotFoundError:  # the frames have been let go of
        whole = True
    except (TypeError, ValueError, SyntaxError):
        return False
    rows = len(kept.places) if kept.places.ndim == 1 else -1
    return (
        whole
        and min(frames, *shape_px) >= 0
        and dtype.kind in "iuf"
        and (kept.indices.shape, kept.positions_px.shape) == ((rows,), (rows, 2))
        and (kept.indices.dtype.kind, kept.places.dtype.kind, kept.positions_px.dtype.kind) == ("i", "i", "f")
        and (not rows or (kept.places.min() >= 0 and kept.places.max() < frames))
        and (kept.probe is None or (kept.probe.ndim == 3 and kept.probe.dtype.kind == "c"))
        and (kept.mask is None or (kept.mask.ndim == 2 and kept.mask.dtype == np.bool_))
    )


def _let_go(folder: Path) -> list[int]:
    lost = []
    for oldest in kept_perspectives(folder)[:-KEPT_AT_ONCE]:
        if (oldest / FRAMES).exists():
            lost.append(int(oldest.name))
        shutil.rmtree(oldest, ignore_errors=True)
    return lost
