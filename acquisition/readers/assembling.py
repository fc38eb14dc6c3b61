"""A perspective from what its file says and what the user has set: one way for all formats."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.frame_stack import FrameStack
from ptychoflow.acquisition.readers.geometry import complete_geometry
from ptychoflow.acquisition.readers.probes import fitted
from ptychoflow.acquisition.readers.stored import StoredPerspective
from ptychoflow.acquisition.source_settings import FrameAxes, FrameChoice, FrameRange, ReplaySettings
from ptychoflow.streaming.errors import UserError

Indices = npt.NDArray[np.intp]


def assemble(contents: FileContents, settings: ReplaySettings, *, index: int) -> StoredPerspective:
    """Return perspective `index`.

    Raises:
        UserError: the file does not hold what is needed, and the settings do not give it.
    """
    axes = settings.frame_axes or contents.frame_axes
    if axes is None:
        raise UserError(
            f"{contents.where}: frames may be stored with axes (y, x) or (x, y), and nothing in the file says which; "
            f"say it with --set source.frame_axes={FrameAxes.YX} or {FrameAxes.XY}"
        )
    if axes is FrameAxes.XY:
        contents = _transposed(contents)
    notes = list(contents.notes)
    geometry, said = complete_geometry(
        contents.geometry, settings.geometry, frame_shape_px=contents.frames.shape_px, where=contents.where
    )
    notes += said
    if contents.positions is None:
        raise UserError(
            f"{contents.where}: the file has no positions; name the file that holds them, "
            "such as --set source.positions.file=positions.txt --set source.positions.unit=um"
        )
    positions = contents.positions
    frames, values = _pair(contents, positions, settings, notes)
    with np.errstate(over="ignore"):  # what is not finite is refused with the frame's number
        positions_px = values if positions.in_pixels else values / geometry.object_pixel_size_m
    probe = contents.probe
    if probe is not None:
        probe, said = fitted(probe, settings.probe, contents.frames.shape_px, where=contents.where)
        notes += said
    return StoredPerspective(
        where=contents.where,
        index=index,
        angle_deg=contents.angle_deg or 0.0,
        geometry=geometry,
        positions_px=positions_px,
        frame_count=frames.count,
        dtype=frames.dtype,
        read=frames.read,
        probe=probe,
        mask=contents.mask,
        ground_truth=contents.ground_truth,
        notes=notes,
    )


def _transposed(contents: FileContents) -> FileContents:
    """Return the contents of a file whose frames are stored (x, y)."""
    height, width = contents.frames.shape_px
    mask = contents.mask
    return replace(
        contents,
        frames=contents.frames.changed(lambda part: part.swapaxes(1, 2), shape_px=(width, height)),
        mask=mask.T if mask is not None and mask.shape == (height, width) else mask,
    )


def _pair(
    contents: FileContents, positions: Positions, settings: ReplaySettings, notes: list[str]
) -> tuple[FrameStack, npt.NDArray[np.float64]]:
    """Return frames and positions that belong together, without those that are left out."""
    stack = contents.frames
    if positions.frames is None:
        used, values = _lined_up(contents, positions.values, settings.frames, notes)
    else:
        used, values = _joined(contents, positions.values, positions.frames, notes)
    kept = ~_dropped(used, settings.drop_frames)
    if not kept.all():
        notes.append(f"{int((~kept).sum())} frames are left out, as set")
        used, values = used[kept], values[kept]
    _refuse_missing(contents, used)
    everything = len(used) == stack.count and (len(used) == 0 or used[0] == 0)
    return (stack if everything else stack.chosen(used)), values


def _lined_up(
    contents: FileContents, values: npt.NDArray[np.float64], choice: FrameChoice, notes: list[str]
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Pair row k with frame k."""
    frames, rows = contents.frames.count, len(values)
    both = min(frames, rows)
    if frames == rows:
        return np.arange(frames), values
    if choice is FrameChoice.ALL or both == 0:
        _fail(
            contents,
            f"there are {frames} frames but {rows} positions; every frame needs its own position. "
            f"If only the end is too long, use the first {both} of both with --set source.frames={FrameChoice.FIRST}; "
            f"if only the beginning is, the last ones with --set source.frames={FrameChoice.LAST}",
        )
    more = f"{frames - both} frames" if frames > rows else f"{rows - both} positions"
    end = "end" if choice is FrameChoice.FIRST else "beginning"
    notes.append(f"There were {frames} frames but {rows} positions: {more} at the {end} are left out, as set")
    if choice is FrameChoice.FIRST:
        return np.arange(both), values[:both]
    return np.arange(frames - both, frames), values[rows - both :]


def _joined(
    contents: FileContents, values: npt.NDArray[np.float64], numbers: npt.NDArray[np.int64], notes: list[str]
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Average the rows of each frame; leave out frames without rows, and rows without a frame."""
    frames = contents.frames.count
    inside = (numbers >= 0) & (numbers < frames)
    used, place = np.unique(numbers[inside], return_inverse=True)
    if not len(used):
        _fail(contents, "no position belongs to any of the frames; check the index of the positions and its origin")
    weights = np.bincount(place)
    averaged = np.stack([np.bincount(place, values[inside, axis]) / weights for axis in (0, 1)], axis=1)
    if len(used) < frames:
        notes.append(f"{frames - len(used)} of {frames} frames have no position and are left out")
    if not inside.all():
        doubt = "; is the origin of their index right?" if len(used) < frames else ""
        notes.append(f"{int((~inside).sum())} of {len(numbers)} positions belong to no frame and are left out{doubt}")
    return used.astype(np.intp), averaged


def _dropped(used: Indices, ranges: tuple[int | FrameRange, ...]) -> npt.NDArray[np.bool_]:
    dropped = np.zeros(len(used), bool)
    for one in ranges:
        first, last = one if isinstance(one, tuple) else (one, one)
        dropped |= (used >= first) & (used <= last)
    return dropped


def _refuse_missing(contents: FileContents, used: Indices) -> None:
    """Raise `UserError` if frames that are to be used lie in a file that is not there."""
    for missing in contents.frames.missing:
        if ((used >= missing.start) & (used < missing.stop)).any():
            _fail(
                contents,
                f"frames {missing.start} to {missing.stop - 1} are kept in {missing.source}, which is missing; "
                "put it there, or leave these frames out with "
                f"--set source.drop_frames=[[{missing.start},{missing.stop - 1}]]",
            )


def _fail(contents: FileContents, text: str) -> NoReturn:
    raise UserError(f"{contents.where}: {text}")
