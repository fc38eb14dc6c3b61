"""Bring the frames, positions and probe of a file to the project's conventions."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.beam_check import centre_notes, off_middle_notes
from ptychoflow.acquisition.frame_check import readable_frames, usable
from ptychoflow.acquisition.frame_survey import LEAST_FRAMES, FrameSurvey, survey_frames
from ptychoflow.acquisition.mask_check import MOSTLY, mostly_masked
from ptychoflow.acquisition.orientation import Orientation
from ptychoflow.acquisition.position_check import line_note
from ptychoflow.acquisition.probe_estimate import (
    GatheredFrames,
    Turn,
    choose_frames,
    diameter_of,
    find_fits,
    probe_of_fit,
)
from ptychoflow.acquisition.propagation import back_propagate, propagate
from ptychoflow.acquisition.readers.hdf5 import HDF5_ERRORS, one_line
from ptychoflow.acquisition.readers.numpy_arrays import mapped_array
from ptychoflow.acquisition.readers.stored import StoredPerspective, fresnel_number
from ptychoflow.acquisition.reading import READING
from ptychoflow.acquisition.repeats import find_places
from ptychoflow.acquisition.scan import Geometry, Perspective
from ptychoflow.acquisition.source_settings import PreprocessSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.frame_memory import PART_BYTES, frames_within
from ptychoflow.streaming.set_option import set_option

log = logging.getLogger(__name__)

LARGE_FRAME_PX = 2**21
ESTIMATE_BYTES = 2**31
"""Stored frames that are read to estimate the probe and to check orientation, at most."""
MOST_EXPOSURES = 4
"""Of one position that are looked at until one shows anything."""


class FrameTransform:
    """Transposes frames, flips them about the beam centre and cuts them out around it."""

    def __init__(self, settings: PreprocessSettings, stored_shape: tuple[int, int]) -> None:
        centre = settings.centre_px or (stored_shape[0] // 2, stored_shape[1] // 2)
        self._transpose = settings.transpose
        self._stored_shape = stored_shape
        self._signs = (-1 if settings.flip_y else 1, -1 if settings.flip_x else 1)
        shape = stored_shape[::-1] if settings.transpose else stored_shape
        centre = centre[::-1] if settings.transpose else centre
        self.shape = settings.crop_px or shape
        self.identity = not settings.changes_frame_axes
        (self._rows, good_rows), (self._columns, good_columns) = (
            _source_pixels(length, pixels, middle, sign)
            for length, pixels, middle, sign in zip(shape, self.shape, centre, self._signs, strict=True)
        )
        self.outside = ~(good_rows[:, np.newaxis] & good_columns)
        """(y, x), True for pixels that the stored frame does not have."""
        used = self._columns if settings.transpose else self._rows
        self.rows = int(used.min()), int(used.max()) + 1
        """Of the stored frame: the first that is looked at, and the one behind the last."""

    def apply(self, images: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Transform images (..., y, x) on the detector; pixels that the stored frame does not have become 0."""
        if self.identity:
            return images
        if self._transpose:
            images = images.swapaxes(-2, -1)
        moved = images[..., self._rows[:, np.newaxis], self._columns]
        moved[..., self.outside] = 0
        return moved

    def apply_to_probe(self, probe: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
        """Transform a probe (mode, y, x) so that it makes the transformed frames: cut in the detector's plane."""
        if self.identity:
            return probe
        wave = propagate(probe)
        if self._transpose:
            wave = wave.swapaxes(-2, -1)
        (rows, good_rows), (columns, good_columns) = self._pixels_of_probe(wave.shape[-2:])
        wave = wave[..., rows[:, np.newaxis], columns] * (good_rows[:, np.newaxis] & good_columns)
        return back_propagate(wave).astype(np.complex64)

    def undo_on_probe(self, probe: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
        """Return the probe (mode, y, x) of stored frames that `apply_to_probe` makes this one of; dark around it."""
        if self.identity:
            return probe
        shape = self._stored_shape[::-1] if self._transpose else self._stored_shape
        (rows, good_rows), (columns, good_columns) = self._pixels_of_probe(shape)
        wave = np.zeros((len(probe), *shape), np.complex64)
        cut = propagate(probe)[:, good_rows][..., good_columns]
        wave[:, rows[good_rows, np.newaxis], columns[good_columns]] = cut
        return back_propagate(wave.swapaxes(-2, -1) if self._transpose else wave).astype(np.complex64)

    def _pixels_of_probe(self, shape: tuple[int, ...]) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]]:
        """Return `_source_pixels` on both axes of a probe, whose beam is in the middle of the detector's plane."""
        return [
            _source_pixels(length, pixels, length // 2, sign)
            for length, pixels, sign in zip(shape, self.shape, self._signs, strict=True)
        ]

    def apply_to_geometry(self, geometry: Geometry) -> Geometry:
        """Return the geometry of the transformed frames."""
        pixel_y, pixel_x = geometry.detector_pixel_size_m
        pixel_size = (pixel_x, pixel_y) if self._transpose else (pixel_y, pixel_x)
        return replace(geometry, detector_pixel_size_m=pixel_size, frame_shape_px=self.shape)


def _source_pixels(
    length: int, pixels: int, centre: int, sign: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return where each of `pixels` pixels about `centre` comes from on an axis, and whether it exists there."""
    source = centre + sign * (np.arange(pixels) - pixels // 2)
    return np.clip(source, 0, length - 1), (source >= 0) & (source < length)


class FilePerspective(Perspective):
    """A perspective of a file. Masked pixels and negative counts (of frames with a background removed) read as 0."""

    def __init__(self, stored: StoredPerspective, settings: PreprocessSettings) -> None:
        self._stored = stored
        self._settings = settings
        self._transform = FrameTransform(settings, stored.geometry.frame_shape_px)
        self.notes: list[str] = list(stored.notes)
        self.index = stored.index
        self.angle_deg = stored.angle_deg
        self.dtype = stored.dtype.newbyteorder("=")
        self.geometry = self._transform.apply_to_geometry(stored.geometry)
        self.positions_px = self.place(stored.positions_px)
        self._advise_crop()
        self._note_repeats()
        if (line := line_note(self.positions_px)) is not None:
            self.notes.append(line)
        own_mask = self._own_mask(settings)
        survey = self._look_at_frames(settings, self._known_bad(own_mask, settings))
        mask_note = None if own_mask is None else self._mask_note(own_mask, survey)
        self.notes += [*([mask_note] if mask_note else []), *survey.notes]
        self.mask = self._transformed_mask(survey.bad)
        self.ground_truth = stored.ground_truth
        if stored.ground_truth is not None and (settings.changes_frame_axes or settings.changes_positions):
            self.ground_truth = None
            self.notes.append("The recorded ground truth is left out: it does not fit the preprocessed frames")
        if survey.bad.mean() < MOSTLY:
            self.notes += centre_notes(survey.mean, settings.centre_px or _middle(stored))
        self.probe = self._find_probe(survey, mask_note)

    @property
    def has_own_probe(self) -> bool:
        """Whether the probe is the file's, not an estimate."""
        return self._stored.probe is not None

    def read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Return frames start to stop. Reads from disk; raises `UserError` when the file is damaged there."""
        stored = self._stored
        # What is cut out may be small where stored frames are large.
        step = frames_within(PART_BYTES, stored.geometry.frame_shape_px, stored.dtype.itemsize)
        starts = range(start, max(stop, start + 1), step)
        parts = [self._finish(self._read_stored(one, min(one + step, stop))) for one in starts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def prepare(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return frames (n, y, x) as `read` does that came later than those that the perspective was made of."""
        return self._finish(self._centred(stored))

    @property
    def cuts_frames(self) -> bool:
        """Whether `prepare` makes new frames, and leaves those that it is given as they are."""
        return not self._transform.identity

    @property
    def rows_looked_at(self) -> tuple[int, int]:
        """Of stored frames: the first row that `prepare` makes anything of, and the one behind the last."""
        if self._settings.zero_frequency_in_corner:
            return 0, self._stored.geometry.frame_shape_px[0]
        return self._transform.rows

    def place(self, stored_px: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return positions (n, 2), in object pixels of frames as stored, as `positions_px` are."""
        return _transform_positions(self._stored.geometry, stored_px, self._settings, self.geometry)

    def _finish(self, frames: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        frames = self._transform.apply(frames)
        if frames.dtype.kind != "u":
            np.maximum(frames, 0, out=frames)
        if self.mask is not None:
            frames[:, self.mask] = 0
        return frames

    def _read_stored(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        READING.debug("%s: frames %d to %d", self._stored.where, start, stop - 1)
        try:
            frames = self._stored.read(start, stop)
        except (*HDF5_ERRORS, ArithmeticError, MemoryError) as error:
            raise UserError(
                f"{self._stored.where}: frames {start} to {stop} cannot be read: {one_line(error)}"
            ) from error
        if len(frames) != max(min(stop, len(self)) - start, 0):
            raise UserError(f"{self._stored.where}: of frames {start} to {stop} only {len(frames)} are there")
        return self._centred(frames)

    def _centred(self, frames: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return frames with zero frequency in the middle, in this machine's order of bytes."""
        if self._settings.zero_frequency_in_corner:
            frames = np.fft.fftshift(frames, axes=(1, 2))
        return frames.astype(frames.dtype.newbyteorder("="), copy=False)

    def _advise_crop(self) -> None:
        """Say before the work begins that it will be slow."""
        height, width = self.geometry.frame_shape_px
        if self.index == 0 and height * width > LARGE_FRAME_PX:
            note = (
                f"Frames of {height} × {width} px take much memory and time: cut them out about the beam, such as with "
                + set_option("source.preprocess.crop_px", "[512,512]")
            )
            log.warning("%s", note)
            self.notes.append(note)

    def _note_repeats(self) -> None:
        if repeats := find_places(self.positions_px).repeats:
            self.notes.append(
                f"{repeats} of {len(self)} frames were taken where another one was before: exposures of one position "
                "are averaged for phase retrieval, and count once where the probe is estimated"
            )

    def _known_bad(
        self, own_mask: npt.NDArray[np.bool_] | None, settings: PreprocessSettings
    ) -> npt.NDArray[np.bool_] | None:
        """Return the stored pixels that the file's mask or the user's ignores."""
        known = [own_mask, _load_mask(settings.mask, self._stored)]
        masks = [mask for mask in known if mask is not None]
        if not masks:
            return None
        bad: npt.NDArray[np.bool_] = np.logical_or.reduce(masks)
        return np.fft.fftshift(bad) if settings.zero_frequency_in_corner else bad

    def _transformed_mask(self, bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
        masks = [self._transform.apply(bad)] if bad.any() else []
        if self._transform.outside.any():
            masks.append(self._transform.outside)
        return np.logical_or.reduce(masks) if masks else None

    def _own_mask(self, settings: PreprocessSettings) -> npt.NDArray[np.bool_] | None:
        """Return the file's mask, inverted if that is set."""
        mask = self._stored.mask
        if mask is None:
            return None
        if settings.invert_mask:
            mask = ~mask
            self.notes.append(
                f"The {self._stored.said_by}'s mask is inverted, as set: {int(mask.sum())} pixels are ignored"
            )
        if mask.all():
            raise UserError(f"{self._stored.where}: the mask leaves no pixel; {self._other_polarity()}")
        return mask

    def _mask_note(self, mask: npt.NDArray[np.bool_], survey: FrameSurvey) -> str | None:
        """Return a doubt about the file's mask if it ignores most of the frame, or most of what is lit."""
        ignored = mostly_masked(
            np.fft.fftshift(mask) if self._settings.zero_frequency_in_corner else mask, survey.light
        )
        if not ignored:
            return None
        return f"The {self._stored.said_by}'s mask ignores {' and '.join(ignored)}; {self._other_polarity()}"

    def _other_polarity(self) -> str:
        other = str(not self._settings.invert_mask).lower()
        return f"if the mask is meant the other way round, --set source.preprocess.invert_mask={other}"

    def _look_at_frames(self, settings: PreprocessSettings, known_bad: npt.NDArray[np.bool_] | None) -> FrameSurvey:
        survey = survey_frames(
            self._read_stored,
            frames=self._stored.frame_count,
            shape_px=self._stored.geometry.frame_shape_px,
            dtype=self._stored.dtype,
            known_bad=known_bad,
            saturation_counts=settings.saturation_counts,
            find_bad=settings.find_bad_pixels,
        )
        if survey.nothing_usable:
            no_probe = f"the {self._stored.said_by} has no probe, and frames without counts cannot show it: "
            text = (
                f"{'' if self._stored.probe is not None else no_probe}none of the {survey.looked_at} frames looked at "
                f"shows anything ({survey.reasons()}); is this the right dataset, and was the shutter open?"
            )
            if self._stored.index == 0:
                raise UserError(f"{self._stored.where}: {text}")
            self.notes.append(f"{text[0].upper()}{text[1:]}")  # perspectives before and after it are worth a run
        return survey

    def orientation(self) -> Orientation | None:
        """Return how frames lie to positions, from up to 256 frames; None if too few of them show anything."""
        gathered = self.gather_frames()
        if gathered is None:
            return None
        stored = self._stored.probe
        diameter = None if stored is None else diameter_of(stored)
        return Orientation(find_fits(gathered, self.mask), self._settings, probe_diameter=diameter)

    def _find_probe(self, survey: FrameSurvey, mask_note: str | None) -> npt.NDArray[np.complex64] | None:
        """Return the file's probe or an estimated one; check how frames lie to positions on the way."""
        stored = self._stored.probe
        if stored is not None:
            # One perspective tells for all of them.
            if self.index == 0 and (orientation := self.orientation()) is not None:
                self._note_orientation(orientation)
            if self.index == 0:
                self.notes += off_middle_notes(stored)
            return self._transform.apply_to_probe(stored)
        if survey.nothing_usable:
            return None
        no_probe = f"{self._stored.where}: the {self._stored.said_by} has no probe"
        if len(self) < 2:
            raise UserError(f"{no_probe}, and one frame is not enough to estimate it")
        gathered = self.gather_frames()
        if gathered is None:
            why = f". {mask_note}" if mask_note else ""
            raise UserError(f"{no_probe}, and frames without counts cannot show it{why}")
        orientation = Orientation(find_fits(gathered, self.mask), self._settings)
        fit = orientation.fits[Turn.NONE]
        estimate = probe_of_fit(gathered, fit, self.mask)
        self.notes.append(
            f"The {self._stored.said_by} has no probe; it was estimated from {len(gathered)} frames, "
            f"with a diameter of {estimate.diameter_fraction:.0%} of the field of view"
        )
        self._refuse_near_field(estimate.probe)
        if orientation.recommended in {None, Turn.NONE} and not fit.clear:
            why = "lies at the edge of what is tried" if fit.at_edge else "fits hardly better than others"
            self.notes.append(
                f"The estimated probe is uncertain: its diameter {why} (score {fit.score:.2f}); phase retrieval may "
                "not converge. Check orientation (ptychoflow inspect --orientation), beam centre and units, or give a "
                "file with a probe"
            )
        else:
            self._note_orientation(orientation)
        return estimate.probe

    def _note_orientation(self, orientation: Orientation) -> None:
        if (note := orientation.note()) is not None:
            self.notes.append(note)

    def _refuse_near_field(self, probe: npt.NDArray[np.complex64]) -> None:
        if (fresnel := fresnel_number(probe, self.geometry)) > 1:
            raise UserError(
                f"{self._stored.where}: unsupported geometry: the Fresnel number of the estimated probe is "
                f"{fresnel:.3g}, a near-field scan; only far-field scans (below 1) can be processed"
            )

    def gather_frames(self) -> GatheredFrames | None:
        """Read the frames that show probe and orientation, one at a time; None if fewer than two can be used."""
        gathered = GatheredFrames()
        height, width = self._stored.geometry.frame_shape_px
        most = max(LEAST_FRAMES, ESTIMATE_BYTES // (height * width * self._stored.dtype.itemsize))
        places = find_places(self.positions_px)
        for first in choose_frames(self.positions_px, most=most).tolist():
            exposures = np.flatnonzero(places.of_frame == places.of_frame[first])
            for index, frame in readable_frames(self, exposures[:MOST_EXPOSURES].tolist()):
                if usable(frame)[0]:
                    gathered.add(frame[0], self.positions_px[index])
                    break
        return gathered if len(gathered) > 1 else None


def _middle(stored: StoredPerspective) -> tuple[int, int]:
    height, width = stored.geometry.frame_shape_px
    return height // 2, width // 2


def _transform_positions(
    stored: Geometry, stored_px: npt.NDArray[np.float64], settings: PreprocessSettings, geometry: Geometry
) -> npt.NDArray[np.float64]:
    order = [1, 0] if settings.swap_positions else [0, 1]
    pixel_ratio = np.array(stored.object_pixel_size_m)[order] / geometry.object_pixel_size_m
    signs = np.array([settings.position_sign_y, settings.position_sign_x])
    factor: npt.NDArray[np.float64] = pixel_ratio * signs * settings.position_scale
    return stored_px[:, order] * factor


def _load_mask(path: Path | None, stored: StoredPerspective) -> npt.NDArray[np.bool_] | None:
    if path is None:
        return None
    try:
        mask = mapped_array(path)
    except UserError as error:
        raise UserError(f"the mask cannot be read: {error}") from error
    if mask.dtype.kind not in "iubf":
        raise UserError(f"{path}: the mask must be numbers, not {mask.dtype}")
    if mask.shape != stored.geometry.frame_shape_px:
        raise UserError(
            f"{path}: the mask has shape {mask.shape} but stored frames have {stored.geometry.frame_shape_px}"
        )
    return np.asarray(mask != 0)
