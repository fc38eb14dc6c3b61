"""Masks of detector pixels, as files hold them."""

from __future__ import annotations

from collections.abc import Callable

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.hdf5 import HDF5_ERRORS, location, one_line
from ptychoflow.acquisition.readers.links import missing_sources
from ptychoflow.acquisition.reading import READING
from ptychoflow.streaming.errors import UserError

Mask = npt.NDArray[np.bool_]

# Bits of CXI's pixel status that say that a pixel must not be used: invalid, saturated, hot, dead, shadowed, in the
# peak mask, to be ignored, bad, missing. All others tell something about a pixel that is used, such as that it has
# signal (0x1000), lies in a halo (0x400) or was corrected (0x800).
CXI_BAD_BITS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20 | 0x40 | 0x80 | 0x200
PARTS_BYTES = 2**25
"""Of a mask for every frame, read at a time."""
MAXIMUM_BYTES = 2**36
"""Of masks for every frame together: reading them takes a minute."""


def read_mask(dataset: h5py.Dataset, *, good: int = 0) -> Mask:
    """Return the mask (y, x), True for pixels to ignore: those that are not `good` in every one of (n, y, x)."""
    return where_bad(dataset, lambda values: values != good)[0]


def read_cxi_mask(dataset: h5py.Dataset) -> tuple[Mask, list[str]]:
    """Return the mask (y, x) of a CXI pixel status, True for pixels to ignore, and notes on what its bits say.

    Raises `UserError` unless its axes are (y, x), (1, y, x) or (frame, y, x).
    """
    if dataset.dtype.kind not in "iub":
        return read_mask(dataset), []
    seen = np.zeros(1, np.uint64)

    def is_bad(values: npt.NDArray[np.generic]) -> Mask:
        status = values.astype(np.int64).view(np.uint64)
        seen[0] |= np.bitwise_or.reduce(status, axis=None)
        return np.asarray(status & np.uint64(CXI_BAD_BITS) != 0)

    bad, everywhere = where_bad(dataset, is_bad)
    notes = []
    if information := int(seen[0]) & ~CXI_BAD_BITS:
        notes.append(f"Bits {information:#x} of the mask mark no bad pixels and are not heeded")
    if (changing := int(bad.sum() - everywhere.sum())) > 0:
        notes.append(f"{changing} pixels are masked in some frames only; they are ignored in all of them")
    return bad, notes


def where_bad(dataset: h5py.Dataset, is_bad: Callable[[npt.NDArray[np.generic]], Mask]) -> tuple[Mask, Mask]:
    """Return where any frame's mask is bad, and where that of every frame is; read in parts."""
    if dataset.ndim not in {2, 3} or 0 in dataset.shape:
        raise UserError(f"{location(dataset)}: the mask must have axes (y, x) or (frame, y, x), not {dataset.shape}")
    if dataset.dtype.kind not in "iubf":
        raise UserError(f"{location(dataset)}: the mask must be numbers, not {dataset.dtype}")
    for missing in missing_sources(dataset):
        raise UserError(f"{location(dataset)} is kept in {missing.source}, which is missing; put it there")
    any_bad, all_bad = np.zeros(dataset.shape[-2:], bool), np.ones(dataset.shape[-2:], bool)
    # Where nothing was ever written, every frame's mask is the same: the value that fills the dataset.
    written = dataset.is_virtual or dataset.id.get_storage_size() > 0
    count = len(dataset) if written else 1
    if written and dataset.nbytes > MAXIMUM_BYTES:
        raise UserError(
            f"{location(dataset)}: masks {dataset.shape} for every frame are too many to be read; leave them out of "
            "the file, and give one mask (y, x) by --set source.preprocess.mask=mask.npy"
        )
    step = max(1, PARTS_BYTES // max(1, dataset.nbytes // len(dataset))) if dataset.ndim == 3 else 1
    try:
        for start in range(0, count, step) if dataset.ndim == 3 else [None]:
            READING.debug("%s", location(dataset))
            part = dataset[()][np.newaxis] if start is None else dataset[start : start + step]
            bad = is_bad(part)
            any_bad |= bad.any(axis=0)
            all_bad &= bad.all(axis=0)
    except HDF5_ERRORS as error:
        raise UserError(f"{location(dataset)} cannot be read: {one_line(error)}") from error
    return any_bad, all_bad
