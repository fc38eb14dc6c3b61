"""Pictures of images of odd shapes: line scans, flat or tall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptychoflow.inference_edge.stitching.figures import phase_scale, write_picture

WHITE, GREY = 255, 128
LONGEST_PX = 2000


@pytest.mark.parametrize(
    ("shape_px", "pixel_size_m"),
    [((64, 640), (8e-9, 8e-9)), ((64, 3000), (8e-9, 8e-9)), ((6000, 64), (8e-9, 8e-9)), ((100, 100), (8e-9, 2e-7))],
    ids=["flat", "line", "column", "flat pixels"],
)
def test_nothing_of_a_picture_is_cut_off_and_it_stays_a_picture(
    tmp_path: Path, shape_px: tuple[int, int], pixel_size_m: tuple[float, float]
) -> None:
    values = np.linspace(-1.234, 1.234, shape_px[0] * shape_px[1]).reshape(shape_px)
    path = tmp_path / "picture.png"
    write_picture(path, values, scale=phase_scale(values), label="phase / rad", pixel_size_m=pixel_size_m)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert max(pixels.shape) < LONGEST_PX
    assert min(pixels.shape) > 200, "the colour bar can be read"
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert (edge == WHITE).all()


def test_the_image_keeps_its_aspect_whatever_room_it_has(tmp_path: Path) -> None:
    for shape_px, pixel_size_m, aspect in (((60, 600), (8e-9, 8e-9), 10), ((400, 300), (4e-9, 8e-9), 1.5)):
        values = np.full(shape_px, 0.5)
        values[0, 0], values[-1, -1] = 0.0, 1.0
        path = tmp_path / "picture.png"
        write_picture(path, values, scale=phase_scale(np.array([0.0, 1.0])), label="phase", pixel_size_m=pixel_size_m)
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        # left of the colour bar, which holds every grey
        image = np.abs(pixels[:, :610].astype(int) - GREY) < 4
        rows = image.mean(axis=1) > 0.5
        height, width = rows.sum(), image[rows].any(axis=0).sum()
        assert width / height == pytest.approx(aspect, rel=0.05)
