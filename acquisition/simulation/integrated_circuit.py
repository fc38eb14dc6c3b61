"""A piece of an integrated circuit: layers of wires on a chip, joined by vias, under a row of pads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ptychoflow.acquisition.simulation.specimen import Balls, Boxes, FloatArray, Material, Specimen

COPPER = Material(refraction=1.0, absorption=1.0)
TUNGSTEN = Material(refraction=1.1, absorption=1.8)
SILICON = Material(refraction=0.10, absorption=0.03)

CHIP_FRACTION = 0.76
"""Side of the chip over that of the field; the rest is void."""


class Layer(NamedTuple):
    """Wires of one layer, in object pixels."""

    along_x: bool
    pitch: float
    width: float
    thickness: float
    mean_length: float
    """Mean length of a wire, and the reciprocal of its chance to end."""
    filling: float
    """Share of the track that carries a wire."""


LAYERS = (
    Layer(along_x=True, pitch=7, width=3, thickness=4, mean_length=24, filling=0.55),
    Layer(along_x=False, pitch=9, width=4, thickness=5, mean_length=40, filling=0.5),
    Layer(along_x=True, pitch=18, width=7, thickness=6, mean_length=70, filling=0.5),
    Layer(along_x=False, pitch=34, width=12, thickness=6, mean_length=110, filling=0.5),
)
LAYER_DISTANCE = 9.0

Box = tuple[FloatArray, FloatArray, Material]


def integrated_circuit(field_shape_px: tuple[int, int], rng: np.random.Generator) -> Specimen:
    """Return a chip whose layers lie across the beam at angle 0, in a field (y, x) with void around it."""
    chip = np.array(field_shape_px) * CHIP_FRACTION
    depth = LAYER_DISTANCE * (len(LAYERS) + 1)
    boxes = [_box((0.0, 0.0, 0.0), (depth, *chip), SILICON)]
    for level, layer in enumerate(LAYERS):
        z = LAYER_DISTANCE * (level - (len(LAYERS) - 1) / 2)
        wires = _wires(layer, z, chip, rng)
        boxes += wires
        boxes += _vias(wires, layer, rng)
    boxes += _memory_array(-LAYER_DISTANCE * len(LAYERS) / 2, chip, rng)
    boxes += _pads(LAYER_DISTANCE * len(LAYERS) / 2, chip, rng)
    return Specimen(Boxes.of(boxes), Balls.of([]))


def _box(centre: tuple[float, ...], size: tuple[float, ...], material: Material) -> Box:
    return np.array(centre), np.array(size), material


def _wires(layer: Layer, z: float, chip: FloatArray, rng: np.random.Generator) -> list[Box]:
    length, breadth = (chip[1], chip[0]) if layer.along_x else (chip[0], chip[1])
    wires = []
    for track in np.arange(-breadth / 2 + layer.pitch, breadth / 2 - layer.pitch / 2, layer.pitch):
        for start, stop in _segments(length - layer.pitch, layer, rng):
            middle, extent = (start + stop) / 2, stop - start
            if layer.along_x:
                wires.append(_box((z, track, middle), (layer.thickness, layer.width, extent), COPPER))
            else:
                wires.append(_box((z, middle, track), (layer.thickness, extent, layer.width), COPPER))
    return wires


def _segments(length: float, layer: Layer, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Walk one track from end to end, wires and gaps in turn, and return the wires."""
    mean_gap = layer.mean_length * (1 - layer.filling) / layer.filling
    segments = []
    place = -length / 2 - rng.exponential(layer.mean_length)
    while place < length / 2:
        start, stop = place, place + layer.width + rng.exponential(layer.mean_length)
        place = stop + layer.width + rng.exponential(mean_gap)
        start, stop = max(start, -length / 2), min(stop, length / 2)
        if stop - start >= layer.width:
            segments.append((start, stop))
    return segments


def _vias(wires: list[Box], layer: Layer, rng: np.random.Generator) -> list[Box]:
    """Return a via upwards at one end of every second wire or so."""
    vias = []
    side = 0.8 * layer.width
    for centre, size, _ in wires:
        if rng.random() < 0.5:
            z = centre[0] + LAYER_DISTANCE / 2
            y, x = centre[1:] + (size[1:] - layer.width) / 2
            vias.append(_box((z, y, x), (LAYER_DISTANCE, side, side), TUNGSTEN))
    return vias


def _memory_array(z: float, chip: FloatArray, rng: np.random.Generator) -> list[Box]:
    """Return a block of equal cells in one corner of the chip, some of them missing."""
    pitch, side = 8.0, 4.0
    rows, columns = np.floor(chip * 0.3 / pitch).astype(int)
    corner = -chip / 2 + pitch
    return [
        _box((z, corner[0] + row * pitch, corner[1] + column * pitch), (5.0, side, side), TUNGSTEN)
        for row, column in np.ndindex(rows, columns)
        if rng.random() < 0.8
    ]


def _pads(z: float, chip: FloatArray, rng: np.random.Generator) -> list[Box]:
    """Return a few large squares along one side of the chip."""
    side = 0.11 * chip[1]
    places = np.arange(-chip[1] / 2 + side, chip[1] / 2 - side, 1.8 * side)
    y = chip[0] / 2 - 1.2 * side
    return [_box((z, y + rng.uniform(-0.1, 0.1) * side, x), (6.0, side, side), COPPER) for x in places]
