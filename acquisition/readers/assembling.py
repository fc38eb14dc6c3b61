"""A perspective from what its file says and what the user has set: one way for all formats."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.frame_check import ranges_in_words
from ptychoflow.acquisition.position_check import outliers, unwritten_tail
from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.geometry import complete_geometry
from ptychoflow.acquisition.readers.positions import mean_by_number
from ptychoflow.acquisition.readers.probes import fitted
from ptychoflow.acquisition.readers.stored import StoredPerspective
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.acquisition.source_settings import FrameAxes, FrameChoice, FrameRange, ReplaySettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.set_option import set_option

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
    used, values = _pair(contents, positions, settings, notes)
    with np.errstate(over="ignore"):  # what is not finite is refused with the frame's number
        positions_px = values if positions.in_pixels else values / geometry.object_pixel_size_m
    scaled_px = positions_px * settings.preprocess.position_scale
    apart = outliers(scaled_px, max(geometry.frame_shape_px))
    if apart.any():
        away_px = np.abs(scaled_px[apart] - np.median(scaled_px, axis=0)).max()
        notes.append(
            f"{int(apart.sum())} of {len(used)} positions lie far from all others, up to {away_px:.3g} object pixels "
            f"from the middle: frames {ranges_in_words(used[apart].tolist())} are set aside"
        )
        used, positions_px = used[~apart], positions_px[~apart]
    _refuse_missing(contents, used)
    stack = contents.frames
    everything = len(used) == stack.count and (len(used) == 0 or used[0] == 0)
    frames = stack if everything else stack.chosen(used)
    probe = contents.probe
    if probe is not None:
        probe, said = fitted(probe, settings.probe, contents.frames.shape_px, where=contents.where)
        notes += said
    return StoredPerspective(
        where=contents.where,
        index=index,
        angle_deg=_angle_deg(contents, notes),
        geometry=geometry,
        positions_px=positions_px,
        frame_count=frames.count,
        dtype=frames.dtype,
        read=frames.read,
        probe=probe,
        mask=contents.mask,
        ground_truth=_fitting_object(contents, positions_px, notes),
        notes=notes,
        numbers=None if everything else used,
    )


def _angle_deg(contents: FileContents, notes: list[str]) -> float:
    if contents.angle_deg is not None and not np.isfinite(contents.angle_deg):
        notes.append("The rotation angle is no number; it is taken as 0")
        return 0.0
    return contents.angle_deg or 0.0


def _fitting_object(
    contents: FileContents, positions_px: npt.NDArray[np.float64], notes: list[str]
) -> ObjectImage | None:
    """Return the recorded object if it is one and lies where the positions are."""
    image = contents.ground_truth
    if image is None:
        return None
    if not np.isfinite(image.values).all() or not image.values.any():
        notes.append("The recorded ground truth is left out: it is zero, or not finite everywhere")
        return None
    places = positions_px - image.origin_px
    if not ((places >= 0) & (places <= np.array(image.values.shape) - 1)).all():
        notes.append("The recorded ground truth is left out: it does not lie where the positions are")
        return None
    return image


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
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Return the frames' numbers and positions that belong together, without those that are left out."""
    if positions.frames is None:
        used, values = _lined_up(contents, positions.values, settings.frames, notes)
    else:
        used, values = _joined(contents, positions.values, positions.frames, notes)
    kept = ~_dropped(used, settings.drop_frames)
    if not kept.all():
        notes.append(f"{int((~kept).sum())} frames are left out, as set")
        used, values = used[kept], values[kept]
    if tail := unwritten_tail(values):
        notes.append(
            f"The last {tail} of {len(used)} positions are no numbers or zero, as an aborted scan leaves them: frames "
            f"{ranges_in_words(used[-tail:].tolist())} are set aside"
        )
        used, values = used[:-tail], values[:-tail]
    return used, values


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
    if not inside.any():
        _fail(contents, "no position belongs to any of the frames; check the index of the positions and its origin")
    used, averaged = mean_by_number(values[inside], numbers[inside])
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
                + set_option("source.drop_frames", f"[[{missing.start},{missing.stop - 1}]]"),
            )


def _fail(contents: FileContents, text: str) -> NoReturn:
    raise UserError(f"{contents.where}: {text}")
