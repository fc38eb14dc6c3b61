"""Frames as they lie in a file: how many, of which shape, and how to read some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.hdf5 import location
from ptychoflow.acquisition.readers.links import MissingSource, missing_sources
from ptychoflow.streaming.errors import UserError

Frames = npt.NDArray[np.generic]


@dataclass(frozen=True)
class FrameStack:
    """Frames that are read in parts: never all at once."""

    where: str
    """File and dataset, for error messages."""
    count: int
    shape_px: tuple[int, int]
    """(y, x)."""
    dtype: np.dtype[np.generic]
    read: Callable[[int, int], Frames]
    """Return frames start to stop, (stop - start, y, x)."""
    missing: list[MissingSource] = field(default_factory=list)
    """Frames that are kept in files that are not there: they would read as zero."""

    def changed(
        self,
        change: Callable[[Frames], Frames],
        *,
        shape_px: tuple[int, int] | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> FrameStack:
        """Return the stack whose frames go through `change` (n, y, x) when they are read."""
        return replace(
            self,
            read=lambda start, stop: change(self.read(start, stop)),
            shape_px=shape_px or self.shape_px,
            dtype=np.dtype(dtype) if dtype is not None else self.dtype,
        )

    def chosen(self, indices: npt.NDArray[np.intp]) -> FrameStack:
        """Return the stack of the frames `indices`, which must grow."""
        return replace(
            self,
            count=len(indices),
            read=lambda start, stop: self._read_chosen(indices[start:stop]),
            missing=[],
        )

    def _read_chosen(self, indices: npt.NDArray[np.intp]) -> Frames:
        ends = np.flatnonzero(np.diff(indices) != 1) + 1
        runs = [run for run in np.split(indices, ends) if len(run)]
        parts = [self.read(int(run[0]), int(run[-1]) + 1) for run in runs]
        return np.concatenate(parts) if parts else self.read(0, 0)


def stack_of(dataset: h5py.Dataset) -> FrameStack:
    """Return the frames of a dataset (frame, y, x), or of a scan grid (row, column, y, x), row by row.

    Raises:
        UserError: the dataset has other axes.
    """
    if dataset.ndim not in {3, 4}:
        raise UserError(
            f"{location(dataset)}: frames must have axes (frame, y, x), or (row, column, y, x) of a scan grid, "
            f"not shape {dataset.shape}"
        )
    return stack_with_axes(dataset, ("frame", "y", "x") if dataset.ndim == 3 else ("row", "column", "y", "x"))


def stack_with_axes(dataset: h5py.Dataset, axes: Sequence[str]) -> FrameStack:
    """Return the frames of a dataset whose axes are `axes`: frame, y and x, or row, column, y and x, in any order.

    Raises:
        UserError: the dataset has another number of axes.
    """
    if dataset.ndim != len(axes):
        raise UserError(f"{location(dataset)}: frames have shape {dataset.shape}, but {len(axes)} axes are named")
    lengths = dict(zip(axes, dataset.shape, strict=True))
    scanned = [axis for axis in ("frame", "row", "column") if axis in lengths]
    places = [axes.index(axis) for axis in (*scanned, "y", "x")]
    columns = lengths[scanned[-1]]

    def read_line(before: tuple[int, ...], start: int, stop: int) -> Frames:
        selection: list[int | slice] = [slice(None)] * dataset.ndim
        for axis, row in zip(places, before, strict=False):
            selection[axis] = row
        selection[places[len(before)]] = slice(start, stop)
        left = [place for place in places if isinstance(selection[place], slice)]
        order = [sorted(left).index(place) for place in left]
        return np.ascontiguousarray(dataset[tuple(selection)].transpose(order))

    def read(start: int, stop: int) -> Frames:
        if len(scanned) == 1:
            return read_line((), start, stop)
        return _by_lines(read_line, start, min(stop, lengths["row"] * columns), columns)

    return FrameStack(
        where=location(dataset),
        count=lengths.get("row", 1) * columns,
        shape_px=(lengths["y"], lengths["x"]),
        dtype=dataset.dtype,
        read=read,
        missing=_missing(dataset, axes, lengths),
    )


def _by_lines(read_line: Callable[[tuple[int, ...], int, int], Frames], start: int, stop: int, columns: int) -> Frames:
    """Read frames of a grid a line at a time: a whole block of lines may be far more than was asked for."""
    rows = range(start // columns, (stop - 1) // columns + 1) if stop > start else range(0)
    parts = [read_line((row,), max(start - row * columns, 0), min(stop - row * columns, columns)) for row in rows]
    return np.concatenate(parts) if parts else read_line((0,), 0, 0)


def _missing(dataset: h5py.Dataset, axes: Sequence[str], lengths: dict[str, int]) -> list[MissingSource]:
    """Return which frames are missing; all of them where that cannot be told from the first axis."""
    frames = lengths.get("row", 1) * lengths.get("column", lengths.get("frame", 1))
    inner = frames // dataset.shape[0] if axes[0] in {"frame", "row"} and dataset.shape[0] else 0
    return [
        MissingSource(one.source, one.start * inner, one.stop * inner)
        if inner
        else MissingSource(one.source, 0, frames)
        for one in missing_sources(dataset)
    ]


def stack_of_array(array: Frames, *, where: str) -> FrameStack:
    """Return the frames of an array in memory or mapped from a file, (frame, y, x) or (row, column, y, x)."""
    if array.ndim == 4:
        if not array.flags.c_contiguous:  # reshaping would read all of it
            raise UserError(f"{where}: a scan grid must be stored frame by frame; save it with np.ascontiguousarray")
        array = array.reshape(-1, *array.shape[2:])
    if array.ndim != 3:
        raise UserError(f"{where}: frames must have axes (frame, y, x), not shape {array.shape}")
    return FrameStack(
        where=where,
        count=len(array),
        shape_px=(array.shape[1], array.shape[2]),
        dtype=array.dtype,
        read=lambda start, stop: np.array(array[start:stop]),
    )


def chained(stacks: Sequence[FrameStack]) -> FrameStack:
    """Return the frames of several stacks, one after the other.

    Raises:
        UserError: their frames differ in shape or type.
    """
    first = stacks[0]
    for other in stacks[1:]:
        if (other.shape_px, other.dtype) != (first.shape_px, first.dtype):
            raise UserError(
                f"{other.where}: frames are {other.dtype} of {other.shape_px} pixels, but those of {first.where} are "
                f"{first.dtype} of {first.shape_px}"
            )
    starts = np.concatenate([[0], np.cumsum([stack.count for stack in stacks])])

    def read(start: int, stop: int) -> Frames:
        parts = [
            stack.read(max(start - low, 0), min(stop - low, stack.count))
            for stack, low in zip(stacks, starts.tolist(), strict=False)
            if start < low + stack.count and stop > low
        ]
        return np.concatenate(parts) if parts else first.read(0, 0)

    return replace(
        first,
        count=int(starts[-1]),
        read=read,
        missing=[
            MissingSource(missing.source, missing.start + low, missing.stop + low)
            for stack, low in zip(stacks, starts.tolist(), strict=False)
            for missing in stack.missing
        ],
    )
