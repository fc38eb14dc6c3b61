"""Cells with a nucleus and granules, and metal nanoparticles between and in them."""

from __future__ import annotations

import numpy as np

from ptychoflow.acquisition.simulation.specimen import Balls, Boxes, FloatArray, Material, Specimen

CYTOPLASM = Material(refraction=0.10, absorption=0.05)
MEMBRANE = Material(refraction=0.35, absorption=0.15)
NUCLEUS = Material(refraction=0.25, absorption=0.10)
GRANULE = Material(refraction=0.6, absorption=0.5)
GOLD = Material(refraction=2.0, absorption=3.0)

CLUSTER_FRACTION = 0.78
"""Diameter of the cluster of cells over the side of the field; the rest is void."""

Ball = tuple[FloatArray, float, Material]


def cells(field_shape_px: tuple[int, int], rng: np.random.Generator) -> Specimen:
    """Return a cluster of cells in a field (y, x) with void around it."""
    cluster_radius = CLUSTER_FRACTION * min(field_shape_px) / 2
    stretch = np.array([1.0, field_shape_px[0] / min(field_shape_px), field_shape_px[1] / min(field_shape_px)])
    balls: list[Ball] = []
    for _ in range(round(14 * stretch.prod())):
        radius = rng.uniform(0.18, 0.34) * cluster_radius
        balls += _cell(_point_in_ball(cluster_radius - 0.6 * radius, rng) * stretch, radius, rng)
    for _ in range(round(90 * stretch.prod())):
        balls.append((_point_in_ball(cluster_radius, rng) * stretch, rng.uniform(1.5, 3.0), GOLD))
    return Specimen(Boxes.of([]), Balls.of(balls))


def _cell(centre: FloatArray, radius: float, rng: np.random.Generator) -> list[Ball]:
    membrane = max(1.5, 0.05 * radius)
    balls: list[Ball] = [
        (centre, radius, MEMBRANE),
        (centre, radius - membrane, MEMBRANE.removed()),
        (centre, radius - membrane, CYTOPLASM),
    ]
    nucleus_radius = rng.uniform(0.35, 0.5) * radius
    nucleus = centre + _point_in_ball(0.9 * radius - nucleus_radius, rng)
    balls.append((nucleus, nucleus_radius, NUCLEUS))
    balls.append((nucleus + _point_in_ball(0.6 * nucleus_radius, rng), 0.3 * nucleus_radius, GRANULE))
    for _ in range(rng.integers(12, 25)):
        granule_radius = min(rng.lognormal(np.log(2.5), 0.4), 0.25 * radius)
        balls.append((centre + _point_in_ball(0.9 * radius - granule_radius, rng), granule_radius, GRANULE))
    return balls


def _point_in_ball(radius: float, rng: np.random.Generator) -> FloatArray:
    """Return a point (z, y, x), evenly distributed in a ball about the origin."""
    direction = rng.standard_normal(3)
    distance = radius * np.cbrt(rng.random())
    direction *= distance / np.linalg.norm(direction)
    return direction
