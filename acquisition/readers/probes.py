"""Probes as files hold them, and how they are brought to the shape of the frames."""

from __future__ import annotations

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.propagation import back_propagate, propagate
from ptychoflow.acquisition.readers.hdf5 import location, read_array
from ptychoflow.acquisition.source_settings import ProbeUse
from ptychoflow.streaming.errors import UserError

Probe = npt.NDArray[np.complex64]
MAXIMUM_AXES = 5
# Names of the two parts in a compound type: h5py writes r and i, MATLAB real and imag.
PARTS = (("real", "imag"), ("r", "i"), ("re", "im"))
HOW_TO_IGNORE = f"--set source.probe={ProbeUse.IGNORE} leaves it out and estimates one"


def read_probe(dataset: h5py.Dataset) -> tuple[Probe, list[str]]:
    """Return the probe (mode, y, x) of a dataset, and notes. Raises `UserError` as `to_modes`."""
    return to_modes(read_array(dataset), where=location(dataset))


def to_modes(values: npt.NDArray[np.generic], *, where: str) -> tuple[Probe, list[str]]:
    """Return the probe (mode, y, x), and notes on what was left out.

    It may be complex, a compound of a real and an imaginary part, or real with a last axis of those two; with axes
    (y, x), (mode, y, x) or more in front, of which the first entry is taken (probes that change over the scan).

    Raises:
        UserError: it is something else.
    """
    probe = _as_complex(values)
    if probe is None or not 2 <= probe.ndim <= MAXIMUM_AXES or 0 in probe.shape:
        raise UserError(
            f"{where}: the probe must be complex with axes (mode, y, x), not {values.dtype} of shape {values.shape}; "
            + HOW_TO_IGNORE
        )
    notes = []
    while probe.ndim > 3:
        if len(probe) > 1:
            notes.append(f"The probe changes over the scan: the first of {len(probe)} is where phase retrieval starts")
        probe = probe[0]
    return probe.reshape(-1, *probe.shape[-2:]).astype(np.complex64), notes


def _as_complex(values: npt.NDArray[np.generic]) -> npt.NDArray[np.complexfloating] | None:
    if values.dtype.kind == "c":
        return values.astype(np.complex64)
    for real, imaginary in PARTS:
        if set(values.dtype.names or ()) == {real, imaginary}:
            parts = [np.asarray(values[name], np.float64) for name in (real, imaginary)]  # type: ignore[call-overload]
            return np.asarray(parts[0] + 1j * parts[1])
    if values.dtype.kind == "f" and values.ndim > 2 and values.shape[-1] == 2:
        parts = [np.asarray(values[..., part], np.float64) for part in (0, 1)]
        return np.asarray(parts[0] + 1j * parts[1])
    return None


def fitted(probe: Probe, use: ProbeUse, shape_px: tuple[int, int], *, where: str) -> tuple[Probe | None, list[str]]:
    """Return the probe as the user wants it used, with the frames' shape, and notes.

    Raises:
        UserError: it has another shape than the frames, and what is to be done about it is not said.
    """
    if use is ProbeUse.IGNORE:
        return None, ["The file's probe is left out, as set"]
    if probe.shape[-2:] == shape_px:
        return probe, []
    before = f"{probe.shape[-2]} × {probe.shape[-1]}"
    if use is ProbeUse.AS_STORED:
        raise UserError(
            f"{where}: the probe has {probe.shape[-2:]} pixels but the frames have {shape_px}; "
            f"say how it is meant with --set source.probe={ProbeUse.SAME_PIXEL} or {ProbeUse.SAME_FIELD}, "
            f"or {HOW_TO_IGNORE}"
        )
    if use is ProbeUse.SAME_PIXEL:
        return cut_or_padded(probe, shape_px), [f"The probe of {before} pixels was cut or padded to the frames' shape"]
    wave = cut_or_padded(propagate(probe), shape_px)
    return (
        back_propagate(wave).astype(np.complex64),
        [f"The probe of {before} pixels was cut or padded in the detector's plane"],
    )


def cut_or_padded(images: npt.NDArray[np.complexfloating], shape_px: tuple[int, int]) -> Probe:
    """Return images (..., y, x) cut or padded with zeros to `shape_px` about pixel (y // 2, x // 2)."""
    out = np.zeros((*images.shape[:-2], *shape_px), np.complex64)
    source, target = [], []
    for before, after in zip(images.shape[-2:], shape_px, strict=True):
        low, high = min(before // 2, after // 2), min((before + 1) // 2, (after + 1) // 2)
        source.append(slice(before // 2 - low, before // 2 + high))
        target.append(slice(after // 2 - low, after // 2 + high))
    out[..., target[0], target[1]] = images[..., source[0], source[1]]
    return out
