"""Tiles of large images, so that a viewer who looks closely sees every pixel and fetches only what is in view."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ptychoflow.dashboard.mosaics import FloatImage

TILE_PX = 256
MAX_ZOOM = 6
MAX_TILE = 1 << 16


class TilePlace(BaseModel):
    """Which tile: its pixels are every 2^zoom-th of the image, and it is number (y, x) from the image's corner."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    zoom: int = Field(ge=0, le=MAX_ZOOM)
    """0 is full resolution; each further one halves it."""
    y: int = Field(ge=0, lt=MAX_TILE)
    x: int = Field(ge=0, lt=MAX_TILE)


def cut_tile(image: FloatImage, place: TilePlace) -> FloatImage:
    """Return the pixels of a tile, at most 256 × 256; an empty array beyond the image."""
    step = 1 << place.zoom
    side = TILE_PX * step
    return image[place.y * side : (place.y + 1) * side : step, place.x * side : (place.x + 1) * side : step]


def pixels_digest(pixels: FloatImage) -> str:
    """Return what differs between any two arrays of pixels."""
    return blake2b(np.ascontiguousarray(pixels).data, person=f"{pixels.shape[1]}".encode(), digest_size=16).hexdigest()
