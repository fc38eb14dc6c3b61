"""Pictures of a perspective, drawn from the file that holds its arrays."""

from __future__ import annotations

import logging

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.ptychography.archive_file import LABELS, RESIDUAL, UNREADABLE
from ptychoflow.inference_edge.stitching.figures import (
    ColourScale,
    amplitude_scale,
    difference_scale,
    phase_scale,
    residual_scale,
    write_picture,
)
from ptychoflow.streaming.durable_file import durable_file
from ptychoflow.streaming.events import MosaicKind
from ptychoflow.streaming.run_folder import RunFolder

log = logging.getLogger(__name__)

PICTURE_LABELS = LABELS | {RESIDUAL: "share of the frames’ energy not explained"}
Channel = npt.NDArray[np.floating]


def draw_pictures(folder: RunFolder, perspective: int) -> None:
    """Draw all pictures of a perspective; of a file that cannot be read, none, which is logged.

    Raises:
        OSError: a picture cannot be written.
    """
    path = folder.image_file(perspective)
    try:
        with h5py.File(path) as file:
            pixel_y_m, pixel_x_m = (float(length_m) for length_m in file.attrs["pixel_size_m"])
            pictures = _pictures(file)
    except UNREADABLE as error:
        log.warning("no pictures of perspective %d are drawn, %s cannot be read: %s", perspective, path, error)
        return
    for name, values, scale in pictures:
        kind, _, channel = name.rpartition("_")
        with durable_file(folder.picture(perspective, kind, channel)) as unfinished:
            write_picture(
                unfinished,
                values,
                scale=scale,
                label=PICTURE_LABELS[channel],
                pixel_size_m=(pixel_y_m, pixel_x_m),
            )
    log.info("drew the pictures of perspective %d", perspective)


def _pictures(file: h5py.File) -> list[tuple[str, Channel, ColourScale]]:
    """Return name, values and colours of each picture; those of one channel share their colours.

    Phases are shown with the global phase of the reference, as far as there is one.
    """
    differences = file.get("difference")
    turn_rad = 0.0 if differences is None else float(differences.attrs["global_phase_rad"])
    shown: dict[str, dict[str, Channel]] = {channel: {} for channel in LABELS}
    for kind in (kind.value for kind in MosaicKind if kind in file):
        phase = _image(file, f"{kind}/phase")
        shown["amplitude"][kind] = _image(file, f"{kind}/amplitude")
        shown["phase"][kind] = phase if kind == MosaicKind.REFERENCE else np.angle(np.exp(1j * (phase - turn_rad)))
    standard = MosaicKind.REFERENCE if MosaicKind.REFERENCE in shown["phase"] else MosaicKind.REFRESHED
    scales = {
        "amplitude": amplitude_scale(shown["amplitude"][standard]),
        "phase": phase_scale(shown["phase"][standard]),
    }
    pictures = [
        (f"{name}_{channel}", values, scales[channel])
        for channel, images in shown.items()
        for name, values in images.items()
        if values.size
    ]
    for kind in shown["phase"]:
        if RESIDUAL in file[kind]:
            values = _residual(file[kind])
            pictures.append((f"{kind}_{RESIDUAL}", values, residual_scale(values)))
    compared = {} if differences is None else {channel: _image(differences, channel) for channel in LABELS}
    return pictures + [
        (f"difference_{name}", values, difference_scale(values)) for name, values in compared.items() if values.size
    ]


def _residual(group: h5py.Group) -> Channel:
    """Return the residuals pixel by pixel of the image, NaN where that is empty."""
    cell_px, phase = int(group[RESIDUAL].attrs["cell_px"]), _image(group, "phase")
    cells = _image(group, RESIDUAL)
    if not 1 <= cell_px <= max(phase.shape):
        raise ValueError(f"cells of {cell_px} px")
    rows, columns = (
        np.minimum(np.arange(length) // cell_px, whole - 1)
        for length, whole in zip(phase.shape, cells.shape, strict=True)
    )
    return np.where(np.isfinite(phase), cells[rows[:, np.newaxis], columns], np.nan)


def _image(group: h5py.Group, name: str) -> Channel:
    values: Channel = np.asarray(group[name][()])
    if values.ndim != 2 or values.dtype.kind != "f":
        raise ValueError(f"{name} is no image")
    return values
