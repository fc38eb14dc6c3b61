"""A simulated scan: perspectives of rotating specimens, made when they are asked for."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.propagation import far_field_intensity, propagate, shift_image
from ptychoflow.acquisition.readers.stored import probe_diameter_px
from ptychoflow.acquisition.scan import Geometry, ObjectImage, Perspective, Scan
from ptychoflow.acquisition.simulation.probe import make_probe, with_photons
from ptychoflow.acquisition.simulation.rotation import RotatingSpecimen
from ptychoflow.acquisition.simulation.trajectory import field_shape_px, scan_positions
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError

FRAMES_PER_BLOCK = 64
"""Frames are made in blocks, each with random numbers of its own, so that a frame does not depend on how it is read."""

_SPECIMEN_STREAM, _DETECTOR_STREAM, _POSITION_STREAM, _PHOTON_STREAM = range(4)


class SimulatedScan(Scan):
    """Perspectives of one specimen at evenly spaced angles, or of several specimens one after another.

    Args:
        settings: what is simulated.
        probe: a measured one (mode, y, x) in place of the lens that the settings describe.

    Raises:
        UserError: the probe has another shape than the frames.
    """

    def __init__(self, settings: SimulationSettings, probe: npt.NDArray[np.complex64] | None = None) -> None:
        if probe is not None:
            settings = _stepping_by(probe, settings)
        phases = settings.phases
        self.name = f"simulated {', then '.join(phase.kind.value.replace('_', ' ') for phase in phases)}"
        self._notes = ["The scan is simulated; its ground truth is the true object"]
        self._settings = settings
        self._field_px = field_shape_px(settings)
        self._specimens = [
            RotatingSpecimen(phase, self._field_px, _random(settings, _SPECIMEN_STREAM, phase.seed)) for phase in phases
        ]
        self._places = [(specimen, step) for specimen in self._specimens for step in range(len(specimen.angles_deg))]
        if len(phases) > 1:
            changes = [str(index) for index, (_, step) in enumerate(self._places) if step == 0][1:]
            self._notes.append(f"The specimen changes before perspective {', '.join(changes)}")
        self._geometry = Geometry(
            energy_eV=settings.energy_eV,
            detector_distance_m=settings.detector_distance_m,
            detector_pixel_size_m=settings.detector_pixel_size_m,
            frame_shape_px=settings.frame_shape_px,
        )
        lit_by = make_probe(settings.probe, settings.frame_shape_px) if probe is None else probe
        self._probe = with_photons(lit_by, settings.photons_per_frame)
        self._mask = _dead_pixels(settings)

    def __len__(self) -> int:
        """Return the number of angles of all specimens together."""
        return len(self._places)

    @property
    def frames(self) -> int:
        """Frames of all perspectives together."""
        return len(self) * self._settings.frames_per_perspective

    @property
    def notes(self) -> list[str]:
        """What is simulated."""
        return self._notes

    def perspective(self, index: int) -> SimulatedPerspective:
        """Return perspective `index`; its frames are made when they are read."""
        if not 0 <= index < len(self):
            raise IndexError(f"perspective {index} of {len(self)}")
        specimen, step = self._places[index]
        return SimulatedPerspective(
            self._settings,
            index,
            float(specimen.angles_deg[step]),
            geometry=self._geometry,
            probe=self._probe,
            mask=self._mask,
            ground_truth=specimen.image(step),
        )


class SimulatedPerspective(Perspective):
    """One angle. Frames are uint16, or uint32 when the direct beam is too bright for that."""

    def __init__(
        self,
        settings: SimulationSettings,
        index: int,
        angle_deg: float,
        *,
        geometry: Geometry,
        probe: npt.NDArray[np.complex64],
        mask: npt.NDArray[np.bool_] | None,
        ground_truth: ObjectImage,
    ) -> None:
        self.index = index
        self.angle_deg = angle_deg
        self.geometry = geometry
        self.positions_px = scan_positions(settings, _random(settings, _POSITION_STREAM, index))
        self.probe = probe
        self.mask = mask
        self.ground_truth = ground_truth
        self._expected = partial(expected_frames, probe, ground_truth)
        self._settings = settings
        self.dtype = np.dtype(_count_dtype(probe))
        self._block = lru_cache(maxsize=2)(self._make_block)

    def read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Return frames start to stop; computes them, about 10 µs per 1,000 pixels."""
        start, stop, _ = slice(start, stop).indices(len(self))
        frames = np.empty((max(stop - start, 0), *self.geometry.frame_shape_px), self.dtype)
        done = 0
        while done < len(frames):
            block, offset = divmod(start + done, FRAMES_PER_BLOCK)
            part = self._block(block)[offset : offset + len(frames) - done]
            frames[done : done + len(part)] = part
            done += len(part)
        return frames

    def _make_block(self, block: int) -> npt.NDArray[np.generic]:
        positions_px = self.positions_px[block * FRAMES_PER_BLOCK : (block + 1) * FRAMES_PER_BLOCK]
        expected = self._expected(positions_px)
        counts = _random(self._settings, _PHOTON_STREAM, self.index, block).poisson(expected)
        if self.mask is not None:
            counts[:, self.mask] = 0
        return np.minimum(counts, np.iinfo(self.dtype.name).max).astype(self.dtype)


def expected_frames(
    probe: npt.NDArray[np.complex64], image: ObjectImage, positions_px: npt.NDArray[np.float64]
) -> npt.NDArray[np.floating]:
    """Return the frames (n, y, x) at `positions_px` without noise.

    Patches start at whole pixels of the object and the probe moves by the rest. That shifts the exit wave, which
    the intensity does not see, and leaves the object without interpolation.
    """
    frame_shape = np.array(probe.shape[-2:])
    nearest = np.floor(positions_px + 0.5)
    first = (nearest - image.origin_px).astype(int) - frame_shape // 2
    windows = np.lib.stride_tricks.sliding_window_view(image.values, tuple(frame_shape))
    patches = windows[first[:, 0], first[:, 1]]
    probes = shift_image(probe[np.newaxis], (positions_px - nearest)[:, np.newaxis])
    return far_field_intensity(probes, patches)


def _stepping_by(probe: npt.NDArray[np.complex64], settings: SimulationSettings) -> SimulationSettings:
    """Return the settings with the diameter of a measured probe."""
    if probe.shape[-2:] != settings.frame_shape_px:
        raise UserError(
            f"{settings.probe.measured}: the probe has {probe.shape[-2:]} pixels but the simulated frames have "
            f"{settings.frame_shape_px}; set frame_shape_px to the probe's"
        )
    fraction = max(np.array(probe_diameter_px(probe)) / settings.frame_shape_px)
    lens = settings.probe.model_copy(update={"diameter_fraction": min(float(fraction), 1.0)})
    return settings.model_copy(update={"probe": lens})


def _random(settings: SimulationSettings, *stream: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, *stream])


def _dead_pixels(settings: SimulationSettings) -> npt.NDArray[np.bool_] | None:
    if settings.dead_pixel_fraction == 0:
        return None
    draw = _random(settings, _DETECTOR_STREAM).random(settings.frame_shape_px)
    return draw < settings.dead_pixel_fraction


def _count_dtype(probe: npt.NDArray[np.complex64]) -> type[np.uint16] | type[np.uint32]:
    """Choose a type that holds four times the brightest pixel of the direct beam."""
    direct_beam = np.sum(np.abs(propagate(probe)) ** 2, axis=0)
    return np.uint16 if 4 * direct_beam.max() < np.iinfo(np.uint16).max else np.uint32
