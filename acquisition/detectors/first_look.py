"""What the first frames of a live series show, looked at as those of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import SeriesHeader
from ptychoflow.acquisition.detectors.frame_decoder import Frames
from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.acquisition.preprocess import FilePerspective, FrameTransform
from ptychoflow.acquisition.readers.stored import StoredPerspective, check
from ptychoflow.acquisition.scan import Geometry
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.set_option import set_option

CENTRE_PX = 2.0


@dataclass(frozen=True)
class Look:
    """What was found in the first frames of a series."""

    perspective: FilePerspective
    """Made of these frames, as of those of a file."""
    sent: Geometry
    """Of frames as they are sent."""

    def place(self, positions_m: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return positions (n, 2) in object pixels, with the corrections that are set."""
        return self.perspective.place(positions_m / self.sent.object_pixel_size_m)


def look_at_first_frames(  # noqa: PLR0913  keyword-only, each with one meaning
    stored: Frames,
    positions_px: npt.NDArray[np.float64],
    *,
    where: str,
    index: int,
    header: SeriesHeader,
    geometry: Geometry,
    probe: npt.NDArray[np.complex64] | None,
    settings: LiveSettings,
    notes: Sequence[str],
) -> Look:
    """Look at the first frames of a series as at those of a file. Blocks while orientation and probe are found.

    Args:
        stored: frames (n, y, x) as they are sent.
        positions_px: (n, 2) as (y, x), in object pixels.
        where: names the series to people.
        index: of the perspective.
        header: what the detector said.
        geometry: of frames as they are sent.
        probe: starting probe (mode, y, x): of frames as they are sent, or, if `settings.probe` is a run, as that
            published them with the same corrections; None has it estimated.
        settings: of the scan.
        notes: what was found about the geometry.

    Raises:
        UserError: a probe that does not fit, or no far-field ptychographic scan.
    """
    mask, said = header.mask_for(geometry.frame_shape_px), [*notes, *_beam_centre_note(header, settings)]
    if header.mask is not None and mask is None:
        said.append(f"The detector's mask of {header.mask.shape} pixels is left out: it does not fit the frames")
    frames = [stored]
    first = StoredPerspective(
        where=where,
        index=index,
        angle_deg=header.angle_deg or 0.0,
        geometry=geometry,
        positions_px=positions_px,
        frame_count=len(stored),
        dtype=stored.dtype,
        read=lambda start, stop: frames[0][start:stop].copy(),
        probe=None if probe is None else _of_sent_frames(probe, geometry.frame_shape_px, settings),
        mask=mask,
        notes=said,
        said_by="detector",
    )
    check(first, position_scale=settings.preprocess.position_scale)
    look = Look(FilePerspective(first, settings.preprocess), geometry)
    frames.clear()  # they are not read again
    return look


def _of_sent_frames(
    probe: npt.NDArray[np.complex64], sent_px: tuple[int, int], settings: LiveSettings
) -> npt.NDArray[np.complex64]:
    """Return the probe of frames as they are sent. A run has kept that of the frames that it made of them."""
    transform = FrameTransform(settings.preprocess, sent_px)
    of_run = settings.probe is not None and settings.probe.is_dir()
    frames, shape_px = ("frames as they are cut out", transform.shape) if of_run else ("frames", sent_px)
    if probe.shape[-2:] != shape_px:
        raise UserError(
            f"{settings.probe}: the probe has {probe.shape[-2:]} pixels but {frames} have {shape_px}; "
            "leave source.probe out and it is estimated"
        )
    return transform.undo_on_probe(probe) if of_run else probe


def _beam_centre_note(header: SeriesHeader, settings: LiveSettings) -> list[str]:
    """Say so where the detector's beam centre is not the one that frames are taken to have."""
    if header.beam_centre_px is None or header.shape_px is None or header.beam_centre_px == (0.0, 0.0):
        return []
    taken = settings.preprocess.centre_px or tuple(length // 2 for length in header.shape_px)
    if max(abs(said - used) for said, used in zip(header.beam_centre_px, taken, strict=True)) <= CENTRE_PX:
        return []
    said = [round(place) for place in header.beam_centre_px]
    return [
        f"The detector says that the beam centre is at pixel ({said[0]}, {said[1]}), while ({taken[0]}, {taken[1]}) is "
        f"used; to follow it, {set_option('source.preprocess.centre_px', f'[{said[0]},{said[1]}]')}"
    ]
