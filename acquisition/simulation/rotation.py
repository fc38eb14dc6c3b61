"""One specimen as a scan sees it: the waves behind it at each of its angles."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.acquisition.simulation.cells import cells
from ptychoflow.acquisition.simulation.integrated_circuit import integrated_circuit
from ptychoflow.acquisition.simulation.specimen import Projection, Specimen
from ptychoflow.acquisition.source_settings import SpecimenKind, SpecimenPhase

SPECIMENS: dict[SpecimenKind, Callable[[tuple[int, int], np.random.Generator], Specimen]] = {
    SpecimenKind.INTEGRATED_CIRCUIT: integrated_circuit,
    SpecimenKind.CELLS: cells,
}
SCALING_ANGLES = 13
"""Angles at which the strongest phase shift is looked for."""


class RotatingSpecimen:
    """A specimen at evenly spaced angles, on a field of `field_px` pixels (y, x) centred on the rotation axis."""

    def __init__(self, phase: SpecimenPhase, field_px: tuple[int, int], rng: np.random.Generator) -> None:
        self.angles_deg = np.linspace(*phase.angle_range_deg, phase.perspectives)
        self._phase = phase
        self._field_px = field_px
        self._specimen = SPECIMENS[phase.kind](field_px, rng)

    def image(self, step: int) -> ObjectImage:
        """Return the transmission at angle number `step`.

        Path integrals are scaled so that the strongest one meets the settings; what exceeds it is cut off. The wave is
        exp(i·k·z − i·ω·t), so matter delays it and the phase is negative.
        """
        refraction, absorption = (
            np.clip(integral / strongest, 0.0, 1.0)
            for integral, strongest in zip(self._project(self.angles_deg[step]), self._strongest, strict=True)
        )
        amplitude = self._phase.minimum_amplitude**absorption
        values = amplitude * np.exp(-1j * self._phase.phase_range_rad * refraction)
        origin_y, origin_x = (-float(pixels // 2) for pixels in self._field_px)
        return ObjectImage(values.astype(np.complex64), (origin_y, origin_x))

    @cached_property
    def _strongest(self) -> Projection:
        """The largest path integrals over the range of angles, as arrays of no dimension."""
        projections = [self._project(angle) for angle in np.linspace(*self._phase.angle_range_deg, SCALING_ANGLES)]
        return Projection(*(np.max(integrals) for integrals in zip(*projections, strict=True)))

    def _project(self, angle_deg: float) -> Projection:
        return self._specimen.project(float(angle_deg), self._field_px)
