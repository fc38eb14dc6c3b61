import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ptychoflow.dashboard.png import ColourMap, colour_bar_png, encode_png


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


@pytest.mark.parametrize("colour_map", list(ColourMap))
def test_every_pixel_has_the_colour_of_its_value(colour_map):
    values = np.linspace(-1.5, 1.5, 300).reshape(15, 20)
    pixels = decode(encode_png(values, (-1.0, 1.0), colour_map))
    index = np.clip(np.floor((values + 1) / 2 * 255), 0, 254) / 254
    expected = matplotlib.colormaps[colour_map](index, bytes=True)
    np.testing.assert_array_equal(pixels, expected)


def test_what_is_not_covered_is_transparent():
    values = np.array([[np.nan, 0.0], [np.inf, 1.0]])
    assert decode(encode_png(values, (0, 1), ColourMap.GRAY))[..., 3].tolist() == [[0, 255], [0, 255]]


@pytest.mark.filterwarnings("error")
def test_what_has_no_place_between_limits_that_are_too_far_apart_is_transparent():
    shown = encode_png(np.array([[0.0, 1.7e308]]), (-1.7e308, 1.7e308), ColourMap.GRAY)
    assert np.asarray(Image.open(io.BytesIO(shown)).convert("RGBA"))[..., 3].tolist() == [[255, 0]]


def test_gray_keeps_row_and_column_order():
    pixels = decode(encode_png(np.array([[0.0, 1.0], [0.5, 0.0]]), (0, 1), ColourMap.GRAY))[..., 0]
    assert pixels.tolist() == [[0, 255], [128, 0]]


def test_colour_bar_holds_all_colours_in_order():
    bar = decode(colour_bar_png(ColourMap.GRAY))
    assert bar.shape == (1, 255, 4)
    assert (np.diff(bar[0, :, 0].astype(int)) >= 0).all()
    assert (bar[0, 0, 0], bar[0, -1, 0]) == (0, 255)
