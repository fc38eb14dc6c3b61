"""Bring the frames, positions and probe of a file to the project's conventions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.frame_check import usable
from ptychoflow.acquisition.frame_survey import FrameSurvey, survey_frames
from ptychoflow.acquisition.probe_estimate import choose_frames, estimate_probe
from ptychoflow.acquisition.propagation import back_propagate, propagate
from ptychoflow.acquisition.readers.stored import StoredPerspective
from ptychoflow.acquisition.scan import Geometry, Perspective
from ptychoflow.acquisition.source_settings import PreprocessSettings
from ptychoflow.streaming.errors import UserError

MOSTLY_MASKED = 0.5
"""More of a frame than this is rarely masked; the other way round it is."""


class FrameTransform:
    """Transposes frames, flips them about the beam centre and cuts them out around it."""

    def __init__(self, settings: PreprocessSettings, stored_shape: tuple[int, int]) -> None:
        centre = settings.centre_px or (stored_shape[0] // 2, stored_shape[1] // 2)
        self._transpose = settings.transpose
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
        (rows, good_rows), (columns, good_columns) = (
            _source_pixels(length, pixels, length // 2, sign)
            for length, pixels, sign in zip(wave.shape[-2:], self.shape, self._signs, strict=True)
        )
        wave = wave[..., rows[:, np.newaxis], columns] * (good_rows[:, np.newaxis] & good_columns)
        return back_propagate(wave).astype(np.complex64)

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
        self._transform = FrameTransform(settings, stored.geometry.frame_shape_px)
        self.notes: list[str] = list(stored.notes)
        self.index = stored.index
        self.angle_deg = stored.angle_deg
        self.geometry = self._transform.apply_to_geometry(stored.geometry)
        self.positions_px = _transform_positions(stored, settings, self.geometry)
        known_bad = self._known_bad(settings)
        survey = self._look_at_frames(settings, known_bad)
        self.notes += survey.notes
        self.mask = self._transformed_mask(survey.bad)
        self.ground_truth = stored.ground_truth
        if stored.ground_truth is not None and (settings.changes_frame_axes or settings.changes_positions):
            self.ground_truth = None
            self.notes.append("The recorded ground truth is left out: it does not fit the preprocessed frames")
        self.probe = None if survey.nothing_usable and stored.probe is None else self._find_probe()

    def read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Return frames start to stop. Reads from disk; raises `UserError` when the file is damaged there."""
        frames = self._transform.apply(self._read_stored(start, stop))
        if frames.dtype.kind != "u":
            np.maximum(frames, 0, out=frames)
        if self.mask is not None:
            frames[:, self.mask] = 0
        return frames

    def _read_stored(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        try:
            frames = self._stored.read(start, stop)
        except (OSError, RuntimeError, ValueError, MemoryError) as error:
            raise UserError(f"{self._stored.where}: frames {start} to {stop} cannot be read: {error}") from error
        return frames.astype(frames.dtype.newbyteorder("="), copy=False)

    def _known_bad(self, settings: PreprocessSettings) -> npt.NDArray[np.bool_] | None:
        """Return the stored pixels that the file's mask or the user's ignores."""
        known = [self._own_mask(settings), _load_mask(settings.mask, self._stored)]
        masks = [mask for mask in known if mask is not None]
        return np.logical_or.reduce(masks) if masks else None

    def _transformed_mask(self, bad: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
        masks = [self._transform.apply(bad)] if bad.any() else []
        if self._transform.outside.any():
            masks.append(self._transform.outside)
        return np.logical_or.reduce(masks) if masks else None

    def _own_mask(self, settings: PreprocessSettings) -> npt.NDArray[np.bool_] | None:
        """Return the file's mask, inverted if that is set; say so where most of the frame is masked."""
        mask = self._stored.mask
        if mask is None:
            return None
        if settings.invert_mask:
            mask = ~mask
            self.notes.append(f"The file's mask is inverted, as set: {int(mask.sum())} pixels are ignored")
        share = float(mask.mean())
        other = str(not settings.invert_mask).lower()
        turn = f"if the mask is meant the other way round, --set source.preprocess.invert_mask={other}"
        if share == 1.0:
            raise UserError(f"{self._stored.where}: the mask leaves no pixel; {turn}")
        if share > MOSTLY_MASKED:
            self.notes.append(f"The file's mask ignores {share:.0%} of the pixels; {turn}")
        return mask

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
            no_probe = "the file has no probe, and frames without counts cannot show it: "
            text = (
                f"{'' if self._stored.probe is not None else no_probe}none of the {survey.looked_at} frames looked at "
                f"shows anything ({survey.reasons()}); is this the right dataset, and was the shutter open?"
            )
            if self._stored.index == 0:
                raise UserError(f"{self._stored.where}: {text}")
            self.notes.append(f"{text[0].upper()}{text[1:]}")  # perspectives before and after it are worth a run
        return survey

    def _find_probe(self) -> npt.NDArray[np.complex64]:
        if self._stored.probe is not None:
            return self._transform.apply_to_probe(self._stored.probe)
        if len(self) < 2:
            raise UserError(f"{self._stored.where}: the file has no probe, and one frame is not enough to estimate it")
        indices = choose_frames(self.positions_px)
        frames = np.concatenate([self.read(index, index + 1) for index in indices.tolist()])
        good = usable(frames)
        if good.sum() < 2:
            raise UserError(f"{self._stored.where}: the file has no probe, and frames without counts cannot show it")
        frames, indices = frames[good], indices[good]
        estimate = estimate_probe(frames, self.positions_px[indices], self.mask)
        self.notes.append(
            f"The file has no probe; it was estimated from {len(indices)} frames, "
            f"with a diameter of {estimate.diameter_fraction:.0%} of the field of view"
        )
        return estimate.probe


def _transform_positions(
    stored: StoredPerspective, settings: PreprocessSettings, geometry: Geometry
) -> npt.NDArray[np.float64]:
    order = [1, 0] if settings.swap_positions else [0, 1]
    pixel_ratio = np.array(stored.geometry.object_pixel_size_m)[order] / geometry.object_pixel_size_m
    signs = np.array([settings.position_sign_y, settings.position_sign_x])
    factor: npt.NDArray[np.float64] = pixel_ratio * signs * settings.position_scale
    return stored.positions_px[:, order] * factor


def _load_mask(path: Path | None, stored: StoredPerspective) -> npt.NDArray[np.bool_] | None:
    if path is None:
        return None
    try:
        mask = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the mask cannot be read as a .npy array: {error}") from error
    if mask.shape != stored.geometry.frame_shape_px:
        raise UserError(
            f"{path}: the mask has shape {mask.shape} but stored frames have {stored.geometry.frame_shape_px}"
        )
    return np.asarray(mask != 0)
