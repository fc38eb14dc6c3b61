"""Read probe and mask from a dataset, for all file formats."""

from __future__ import annotations

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.hdf5 import location, read_array
from ptychoflow.streaming.errors import UserError


def read_probe(dataset: h5py.Dataset) -> npt.NDArray[np.complex64]:
    """Return the probe (mode, y, x). Raises `UserError` for another shape or type."""
    probe = read_array(dataset)
    if probe.dtype.kind != "c" or probe.ndim not in {2, 3}:
        raise UserError(
            f"{location(dataset)}: the probe must be complex with axes (mode, y, x), "
            f"not {probe.dtype} of shape {probe.shape}"
        )
    return probe.reshape(-1, *probe.shape[-2:]).astype(np.complex64)


def read_mask(dataset: h5py.Dataset, *, good: int = 0) -> npt.NDArray[np.bool_]:
    """Return the mask (y, x), True for pixels to ignore: those that are not `good`."""
    if dataset.ndim != 2:
        raise UserError(f"{location(dataset)}: the mask must have axes (y, x), not shape {dataset.shape}")
    return np.asarray(read_array(dataset) != good)
