"""What is in a scan, in words and numbers, without processing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ptychoflow.acquisition.frame_check import readable_frames, usable
from ptychoflow.acquisition.position_check import step_px
from ptychoflow.acquisition.readers.stored import fresnel_number, probe_diameter_px
from ptychoflow.acquisition.repeats import find_places
from ptychoflow.acquisition.scan import Geometry, Perspective, Scan
from ptychoflow.streaming.printable import printable

SAMPLED_FRAMES = 64


@dataclass(frozen=True)
class CountStatistics:
    """Counts in the usable ones of frames spread over one perspective."""

    dtype: str
    sampled_frames: int
    mean_per_frame: float
    largest: float


@dataclass(frozen=True)
class PerspectiveDescription:
    """One perspective. Pairs are (y, x)."""

    index: int
    angle_deg: float
    frames: int
    extent_px: tuple[float, float]
    """From the lowest to the highest position."""
    step_px: float | None
    """Median distance to the nearest other position; None for a single frame."""
    masked_pixels: int
    ground_truth_shape_px: tuple[int, int] | None


@dataclass(frozen=True)
class ScanDescription:
    """A scan; geometry, probe and counts are those of its first perspective."""

    name: str
    perspectives: list[PerspectiveDescription]
    geometry: Geometry
    probe_modes: int
    probe_diameter_px: tuple[float, float]
    """Four standard deviations of the intensity."""
    fresnel_number: float
    counts: CountStatistics
    notes: list[str]

    @property
    def frames(self) -> int:
        """Return the number of frames in all perspectives."""
        return sum(perspective.frames for perspective in self.perspectives)

    @property
    def overlap(self) -> float | None:
        """Return the linear overlap of neighbouring probes, 1 − step / diameter; negative where they do not touch."""
        step = self.perspectives[0].step_px
        return None if step is None else 1 - step / min(self.probe_diameter_px)

    def __rich__(self) -> Group:
        """Return tables for a terminal."""
        summary = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in self._rows():
            summary.add_row(Text(name, style="bold"), Text(printable(value)))
        notes = [Text(f"Note: {printable(note)}", style="yellow") for note in self.notes]
        return Group(summary, self._perspective_table(), *notes)

    def _rows(self) -> Iterator[tuple[str, str]]:
        geometry = self.geometry
        yield "scan", self.name
        yield (
            "frames",
            f"{self.frames} of {_pair(geometry.frame_shape_px, 'd')} px in {len(self.perspectives)} "
            f"perspective{'s' * (len(self.perspectives) > 1)}",
        )
        yield "photon energy", f"{geometry.energy_eV / 1e3:.4g} keV, wavelength {geometry.wavelength_m * 1e9:.4g} nm"
        yield "detector distance", f"{geometry.detector_distance_m:.4g} m"
        yield "detector pixel", f"{_pair([size * 1e6 for size in geometry.detector_pixel_size_m])} µm"
        yield "object pixel", f"{_pair([size * 1e9 for size in geometry.object_pixel_size_m])} nm"
        yield (
            "probe",
            f"{self.probe_modes} mode{'s' * (self.probe_modes > 1)}, diameter {_pair(self.probe_diameter_px)} px",
        )
        yield "Fresnel number", f"{self.fresnel_number:.2g} (far field: below 1)"
        yield "overlap", "only one frame" if self.overlap is None else f"{self.overlap:.0%} of the probe's diameter"
        counts = self.counts
        yield (
            "counts",
            f"{counts.dtype}, {counts.mean_per_frame:.3g} a frame, largest {counts.largest:g} "
            f"(in {counts.sampled_frames} frames)",
        )

    def _perspective_table(self) -> Table:
        table = Table("no.", "angle", "frames", "extent (px)", "step (px)", "masked", "truth (px)")
        for perspective in self.perspectives:
            truth = perspective.ground_truth_shape_px
            table.add_row(
                str(perspective.index),
                f"{perspective.angle_deg:.4g}°",
                str(perspective.frames),
                _pair(perspective.extent_px),
                "" if perspective.step_px is None else f"{perspective.step_px:.3g}",
                str(perspective.masked_pixels),
                "none" if truth is None else _pair(truth, "d"),
            )
        return table


def _pair(values: tuple[float, ...] | list[float], form: str = ".4g") -> str:
    return " × ".join(format(value, form) for value in values)


def inspect_scan(scan: Scan) -> ScanDescription:
    """Describe a scan. Reads positions of all perspectives and up to `SAMPLED_FRAMES` frames of the first."""
    first = scan.perspective(0)
    probe = first.probe
    if probe is None:
        raise ValueError("an opened scan has a probe")
    perspectives = [_describe(perspective) for perspective in scan]  # which may have notes of their own
    return ScanDescription(
        name=scan.name,
        perspectives=perspectives,
        geometry=first.geometry,
        probe_modes=len(probe),
        probe_diameter_px=probe_diameter_px(probe),
        fresnel_number=fresnel_number(probe, first.geometry),
        counts=_count_statistics(first),
        notes=scan.notes,
    )


def _describe(perspective: Perspective) -> PerspectiveDescription:
    positions_px, truth = perspective.positions_px, perspective.ground_truth
    extent_y, extent_x = np.ptp(positions_px, axis=0).tolist()
    return PerspectiveDescription(
        index=perspective.index,
        angle_deg=perspective.angle_deg,
        frames=len(perspective),
        extent_px=(extent_y, extent_x),
        step_px=step_px(positions_px[find_places(positions_px).first]),
        masked_pixels=0 if perspective.mask is None else int(perspective.mask.sum()),
        ground_truth_shape_px=None if truth is None else (truth.values.shape[0], truth.values.shape[1]),
    )


def _count_statistics(perspective: Perspective) -> CountStatistics:
    """Look at frames one at a time: large ones need not fit into memory together."""
    count = min(len(perspective), SAMPLED_FRAMES)
    total, largest, seen, dtype = 0.0, 0.0, 0, ""
    for _, frame in readable_frames(perspective, (number * len(perspective) // count for number in range(count))):
        dtype = str(frame.dtype)
        if usable(frame)[0]:
            seen += 1
            total += float(frame.sum(dtype=np.float64))
            largest = max(largest, float(frame.max()))
    return CountStatistics(dtype, seen, total / max(seen, 1), largest)
