"""A three-dimensional specimen of boxes and balls, and its projection along the beam at any angle.

Lengths are in object pixels, coordinates (z, y, x) about the specimen's centre; the beam runs along z. Shapes are
exact and projected one by one, so no volume is kept and none has to be interpolated. Where shapes overlap, they add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Material(NamedTuple):
    """What a pixel's length of it does to the wave, in relative units; negative values take away what overlaps."""

    refraction: float
    absorption: float

    def removed(self) -> Material:
        """Return the material of a hole in this one."""
        return Material(-self.refraction, -self.absorption)


class Projection(NamedTuple):
    """Path integrals through the specimen, each (y, x)."""

    refraction: FloatArray
    absorption: FloatArray


@dataclass(frozen=True)
class Boxes:
    """Boxes with edges along the axes: `centre` and `size` (n, 3), `material` (n, 2)."""

    centre: FloatArray
    size: FloatArray
    material: FloatArray

    @classmethod
    def of(cls, boxes: list[tuple[FloatArray, FloatArray, Material]]) -> Self:
        """Gather (centre, size, material) of each box."""
        return cls(*_gather(boxes, widths=(3, 3, 2)))

    def project(self, angle_rad: float, shape_px: tuple[int, int]) -> Projection:
        """Project after rotation by `angle_rad` about y.

        The path length through a rotated box is a trapezoid along x and constant along y, so the sum over all boxes
        is one matrix product. Edges are at least a pixel wide, against aliasing.
        """
        cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
        centre_x = self.centre[:, 2] * cosine + self.centre[:, 0] * sine
        reach = np.abs(self.size[:, 2] * cosine), np.abs(self.size[:, 0] * sine)
        area = self.size[:, 2] * self.size[:, 0]
        along_x = _trapezoids(centre_x, np.maximum(*reach), np.minimum(*reach), pixels=shape_px[1])
        along_x *= area[:, np.newaxis]
        along_y = _trapezoids(self.centre[:, 1], self.size[:, 1], np.zeros(len(self.size)), pixels=shape_px[0])
        along_y *= self.size[:, 1, np.newaxis]
        refraction, absorption = ((along_y * weight[:, np.newaxis]).T @ along_x for weight in self.material.T)
        return Projection(refraction, absorption)


@dataclass(frozen=True)
class Balls:
    """Balls: `centre` (n, 3), `radius` (n, 1), `material` (n, 2)."""

    centre: FloatArray
    radius: FloatArray
    material: FloatArray

    @classmethod
    def of(cls, balls: list[tuple[FloatArray, float, Material]]) -> Self:
        """Gather (centre, radius, material) of each ball."""
        return cls(*_gather(balls, widths=(3, 1, 2)))

    def project(self, angle_rad: float, shape_px: tuple[int, int]) -> Projection:
        """Project after rotation by `angle_rad` about y: the path length is the chord 2·√(r² − ρ²)."""
        centre_x = self.centre[:, 2] * np.cos(angle_rad) + self.centre[:, 0] * np.sin(angle_rad)
        projection = Projection(np.zeros(shape_px), np.zeros(shape_px))
        rows, columns = (_coordinates(pixels) for pixels in shape_px)
        for y, x, radius, material in zip(self.centre[:, 1], centre_x, self.radius[:, 0], self.material, strict=True):
            window_y = slice(*np.searchsorted(rows, (y - radius, y + radius)))
            window_x = slice(*np.searchsorted(columns, (x - radius, x + radius)))
            squared = (rows[window_y, np.newaxis] - y) ** 2 + (columns[window_x] - x) ** 2
            chord = 2 * np.sqrt(np.maximum(radius**2 - squared, 0.0))
            projection.refraction[window_y, window_x] += material[0] * chord
            projection.absorption[window_y, window_x] += material[1] * chord
        return projection


@dataclass(frozen=True)
class Specimen:
    """Boxes and balls."""

    boxes: Boxes
    balls: Balls

    def project(self, angle_deg: float, shape_px: tuple[int, int]) -> Projection:
        """Return the path integrals on `shape_px` pixels about the rotation axis."""
        angle_rad = np.deg2rad(angle_deg)
        boxes, balls = (shapes.project(angle_rad, shape_px) for shapes in (self.boxes, self.balls))
        return Projection(boxes.refraction + balls.refraction, boxes.absorption + balls.absorption)


def _gather(
    shapes: Sequence[tuple[FloatArray, FloatArray | float, Material]], *, widths: tuple[int, ...]
) -> list[FloatArray]:
    columns = zip(*shapes, strict=True) if shapes else ([] for _ in widths)
    return [
        np.reshape(np.array(column, dtype=float), (-1, width)) for column, width in zip(columns, widths, strict=True)
    ]


def _coordinates(pixels: int) -> FloatArray:
    return np.arange(pixels, dtype=np.float64) - pixels // 2


def _trapezoids(centre: FloatArray, wide: FloatArray, narrow: FloatArray, *, pixels: int) -> FloatArray:
    """Return the convolution of two unit-area rectangles per shape, (n, pixels)."""
    top, ramp = np.maximum(wide, 1.0)[:, np.newaxis], np.maximum(narrow, 1.0)[:, np.newaxis]
    distance = np.abs(_coordinates(pixels) - centre[:, np.newaxis])
    height: FloatArray = np.clip(((top + ramp) / 2 - distance) / ramp, 0.0, 1.0)
    return height / top
