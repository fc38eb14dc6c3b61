"""Pictures of the stitched images, their values, and their export."""

from __future__ import annotations

import math
from collections.abc import Hashable
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Header, HTTPException, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from ptychoflow.dashboard import models
from ptychoflow.dashboard.cache import Cache
from ptychoflow.dashboard.exports import npy_file, product_file, tiff_file
from ptychoflow.dashboard.frame_picture import frame_png
from ptychoflow.dashboard.mosaics import Channel, Mosaic
from ptychoflow.dashboard.pictures import DIFFERENCES, RESIDUALS, Picture, PictureKind, make_picture
from ptychoflow.dashboard.png import ColourMap, colour_bar_png, encode_png
from ptychoflow.dashboard.rows import mosaic_row
from ptychoflow.dashboard.runs import NAME_PATTERN, Run, Runs
from ptychoflow.dashboard.tiles import TilePlace, cut_tile, pixels_digest
from ptychoflow.streaming.events import MosaicKind

CHECK_EACH_TIME = {"Cache-Control": "no-cache"}
A_DAY = {"Cache-Control": "max-age=86400"}
WRAPPING_RANGE_RAD = 1.7 * math.pi
"""A phase that uses more of the circle than this is shown with cyclic colours."""
PICTURES_KEPT = 24
PNGS_KEPT = 48
TILES_KEPT = 512

NOT_THERE: dict[int | str, dict[str, Any]] = {
    404: {"model": models.Refused, "description": "There is no such run, perspective or image"},
    409: {
        "model": models.Refused,
        "description": "The run was written by another version of ptychoflow, or cannot be read",
    },
}
RunName = Annotated[
    str | None, Query(pattern=NAME_PATTERN, description="An earlier run; the one that is watched if left out.")
]
PerspectiveName = Annotated[
    int | Literal["newest"], Path(description="A perspective, or `newest`: the newest that has images.")
]
Etag = Annotated[str | None, Header()]


class Look(BaseModel):
    """How a picture is drawn."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    run: RunName = None
    colour_map: ColourMap | None = None
    """One that suits the image if left out."""
    lower: float | None = None
    """Colour limit; chosen from the reference, or its preview, if left out, and moved below `upper` if it is not."""
    upper: float | None = None
    """Colour limit; chosen from the reference, or its preview, if left out, and moved above `lower` if it is not."""
    stride: int = Field(default=1, ge=1, le=64)
    """Show every n-th pixel only."""


class _Shown(NamedTuple):
    """A picture with the colours that it is asked for in."""

    picture: Picture
    key: tuple[Hashable, ...]
    """Says which picture it is; begins with the state's instance."""
    limits: tuple[float, float]
    colours: ColourMap

    @property
    def colouring(self) -> str:
        return f"{self.colours}-{self.limits[0]:.6g}-{self.limits[1]:.6g}"

    @property
    def headers(self) -> dict[str, str]:
        lower, upper = self.limits
        return {"X-Lower": f"{lower:.9g}", "X-Upper": f"{upper:.9g}", "X-Colour-Map": self.colours}


class ImageKind(StrEnum):
    """Images that can be fetched and exported."""

    NETWORK = "network"
    """Refreshed, or else the first pass."""
    FIRST_PASS = "first_pass"
    REFRESHED = "refreshed"
    REFERENCE = "reference"


def image_routes(runs: Runs) -> APIRouter:
    """Return the routes of everything that is drawn."""
    routes = APIRouter(tags=["images"], responses=NOT_THERE)
    _add_lists(routes, runs)
    _add_pictures(routes, runs)
    _add_files(routes, runs)
    _add_probe(routes, runs)
    return routes


def _add_lists(routes: APIRouter, runs: Runs) -> None:
    @routes.get("/api/mosaics", response_model=list[int])
    def pictured(run: RunName = None) -> list[int]:
        """Return the perspectives that have images, at hand or in the run's folder, in order."""
        return _run(runs, run).perspectives()

    @routes.get("/api/mosaics/{perspective}", response_model=list[models.MosaicRow])
    def rows(perspective: PerspectiveName, run: RunName = None) -> list[models.MosaicRow]:
        """Return which images of a perspective there are, at hand or in the run's folder."""
        opened, index = _open(runs, run, perspective)
        return [mosaic_row(mosaic) for mosaic in opened.images(index).values()]


def _add_pictures(routes: APIRouter, runs: Runs) -> None:
    pictures: Cache[Picture | None] = Cache(PICTURES_KEPT)
    pngs: Cache[bytes] = Cache(PNGS_KEPT)
    tiles: Cache[bytes] = Cache(TILES_KEPT)

    def look_at(perspective: PerspectiveName, kind: PictureKind, channel: Channel, look: Look) -> _Shown:
        opened, index = _open(runs, look.run, perspective)
        images = opened.images(index)
        revisions = tuple(mosaic.revision for mosaic in images.values())
        key = (opened.state.instance, index, kind, channel, revisions)
        picture = pictures.get(key, lambda: make_picture(images, kind, channel))
        if picture is None:
            raise HTTPException(404, f"perspective {perspective} has no image {kind}")
        suggested, fitting = colours_of(kind, channel, picture.limits)
        return _Shown(picture, key, _limits(look, suggested), look.colour_map or fitting)

    @routes.get("/api/mosaics/{perspective}/{kind}/{channel}.png", response_class=Response)
    def picture(
        perspective: PerspectiveName,
        kind: PictureKind,
        channel: Channel,
        look: Annotated[Look, Query()],
        if_none_match: Etag = None,
    ) -> Response:
        """Return a picture of a stitched image, transparent where nothing covers it.

        The headers `X-Lower`, `X-Upper` and `X-Colour-Map` say what was used; prediction and reference, or
        its preview, share them.
        """
        shown = look_at(perspective, kind, channel, look)
        revisions = "-".join(map(str, shown.picture.revisions))
        etag = f'"{shown.key[0]}-{revisions}-{shown.colouring}-{look.stride}"'
        headers = CHECK_EACH_TIME | {"ETag": etag} | shown.headers
        if if_none_match == etag:
            return Response(status_code=304, headers=headers)
        values = shown.picture.values[:: look.stride, :: look.stride]
        png = pngs.get((*shown.key, etag), lambda: encode_png(values, shown.limits, shown.colours))
        return Response(png, media_type="image/png", headers=headers)

    @routes.get("/api/mosaics/{perspective}/{kind}/{channel}/tile/{zoom}/{y}/{x}.png", response_class=Response)
    def tile(
        perspective: PerspectiveName,
        kind: PictureKind,
        channel: Channel,
        place: Annotated[TilePlace, Path()],
        look: Annotated[Look, Query()],
        if_none_match: Etag = None,
    ) -> Response:
        """Return one tile of a picture, 256 pixels wide and high or less at the end of the image.

        Its ETag is that of its pixels: a tile that did not change is not sent again, whatever else of the image did.
        """
        shown = look_at(perspective, kind, channel, look)
        values = cut_tile(shown.picture.values, place)
        if not values.size:
            raise HTTPException(404, f"the image ends before tile {place.zoom}/{place.y}/{place.x}")
        etag = f'"{pixels_digest(values)}-{shown.colouring}"'
        headers = CHECK_EACH_TIME | {"ETag": etag} | shown.headers
        if if_none_match == etag:
            return Response(status_code=304, headers=headers)
        png = tiles.get(etag, lambda: encode_png(values, shown.limits, shown.colours))
        return Response(png, media_type="image/png", headers=headers)

    @routes.get("/api/colour_maps/{colour_map}.png", response_class=Response)
    def colour_bar(colour_map: ColourMap) -> Response:
        """Return a colour bar, 1 pixel high, the highest colour on the right."""
        return Response(colour_bar_png(colour_map), media_type="image/png", headers=A_DAY)


def _add_files(routes: APIRouter, runs: Runs) -> None:
    @routes.get("/api/mosaics/{perspective}/{kind}/{channel}.npy", response_class=Response)
    def values(perspective: PerspectiveName, kind: ImageKind, channel: Channel, run: RunName = None) -> Response:
        """Return a stitched image as the edge sent it: NumPy file, float32 (y, x), NaN where nothing covers it."""
        mosaic = _find(runs, run, perspective, kind)[1]
        return _download(npy_file(mosaic.channels[channel]), mosaic, f"_{channel}.npy")

    @routes.get("/api/mosaics/{perspective}/{kind}/{channel}.tiff", response_class=Response)
    def tiff(perspective: PerspectiveName, kind: ImageKind, channel: Channel, run: RunName = None) -> Response:
        """Return a stitched image as OME-TIFF: float32, NaN where nothing covers it, with its pixel size."""
        mosaic = _find(runs, run, perspective, kind)[1]
        return _download(tiff_file(mosaic, channel), mosaic, f"_{channel}.ome.tiff")

    @routes.get("/api/mosaics/{perspective}/{kind}.h5", response_class=Response)
    def product(perspective: PerspectiveName, kind: ImageKind, run: RunName = None) -> Response:
        """Return the complex image as HDF5 in the layout of a ptychodus product; 0 where nothing covers it."""
        opened, mosaic = _find(runs, run, perspective, kind)
        scan = opened.state.scan()
        path = opened.state.path(mosaic.info.perspective)
        return _download(product_file(mosaic, path=path, scan=scan, run=opened.state.run), mosaic, ".h5")


def _add_probe(routes: APIRouter, runs: Runs) -> None:
    @routes.get("/api/positions/{perspective}.npy", response_class=Response)
    def positions(perspective: int, run: RunName = None) -> Response:
        """Return where the probe goes: NumPy file, float32 (frames, 2) as (y, x) in object pixels."""
        opened, _ = _open(runs, run, perspective)
        path = opened.state.path(perspective)
        if path is None:
            raise HTTPException(404, f"the path of perspective {perspective} is not known")
        return Response(npy_file(path.positions_px), media_type="application/octet-stream", headers=CHECK_EACH_TIME)

    @routes.get("/api/frame.png", response_class=Response)
    def frame_picture() -> Response:
        """Return the newest frame that was shown, on a logarithmic scale."""
        return Response(frame_png(_newest_diffraction(runs)), media_type="image/png", headers=CHECK_EACH_TIME)

    @routes.get("/api/frame.npy", response_class=Response)
    def frame_values() -> Response:
        """Return the newest frame that was shown: NumPy file, float32 (y, x), counts."""
        return Response(
            npy_file(_newest_diffraction(runs)), media_type="application/octet-stream", headers=CHECK_EACH_TIME
        )


def _newest_diffraction(runs: Runs) -> npt.NDArray[np.float32]:
    newest = runs.watched.state.newest_frame()
    if newest is None:
        raise HTTPException(404, "no frame has been shown yet")
    return newest.diffraction


def _run(runs: Runs, name: str | None) -> Run:
    run = runs.open(name)
    if run is None:
        raise HTTPException(404, f"there is no run {name}")
    return run


def _open(runs: Runs, name: str | None, perspective: int | Literal["newest"]) -> tuple[Run, int]:
    run = _run(runs, name)
    index = run.newest_perspective() if perspective == "newest" else perspective
    if index is None or index < 0:
        raise HTTPException(404, f"no perspective {perspective} has an image yet")
    return run, index


def _find(runs: Runs, name: str | None, perspective: int | Literal["newest"], kind: ImageKind) -> tuple[Run, Mosaic]:
    run, index = _open(runs, name, perspective)
    images = run.images(index)
    if kind is ImageKind.NETWORK:
        mosaic = images.get(MosaicKind.REFRESHED) or images.get(MosaicKind.FIRST_PASS)
    else:
        mosaic = images.get(MosaicKind(kind))
    if mosaic is None:
        raise HTTPException(404, f"perspective {perspective} has no image {kind}")
    return run, mosaic


def _download(content: bytes, mosaic: Mosaic, ending: str) -> Response:
    name = f"perspective_{mosaic.info.perspective:04d}_{mosaic.info.kind}{ending}"
    headers = CHECK_EACH_TIME | {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


def colours_of(
    kind: PictureKind, channel: Channel, limits: tuple[float, float]
) -> tuple[tuple[float, float], ColourMap]:
    """Return the limits and colour map for a picture: diverging for differences, cyclic for phases that wrap."""
    if kind in DIFFERENCES:
        return limits, ColourMap.BLUE_RED
    if kind in RESIDUALS:
        return limits, ColourMap.MAGMA
    if channel is Channel.AMPLITUDE:
        return limits, ColourMap.GRAY
    if limits[1] - limits[0] > WRAPPING_RANGE_RAD:
        return (-math.pi, math.pi), ColourMap.TWILIGHT
    return limits, ColourMap.VIRIDIS


def _limits(look: Look, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Return the limits asked for; an end that is left out moves where the other one is beyond it."""
    lower, upper = (
        otherwise[0] if look.lower is None else look.lower,
        otherwise[1] if look.upper is None else look.upper,
    )
    if lower >= upper and look.upper is None:
        upper = lower + otherwise[1] - otherwise[0]
    elif lower >= upper and look.lower is None:
        lower = upper - (otherwise[1] - otherwise[0])
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise HTTPException(422, f"colour limits {lower} and {upper} are not in order")
    return lower, upper
