"""The dashboard's web application: the page, the state, the images; read-only."""

from __future__ import annotations

import io
import math
import time
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Header, HTTPException, Query, WebSocket
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from dashboard import models
from dashboard.feed import Feed
from dashboard.mosaics import Channel
from dashboard.pictures import DIFFERENCES, PictureKind, make_picture
from dashboard.png import ColourMap, colour_bar_png, encode_png
from dashboard.security import SecureRequests
from dashboard.settings import DashboardSettings
from dashboard.state import DashboardState, StateCursor
from streaming.events import MosaicKind

STATIC = Path(__file__).with_name("static")
CHECK_EACH_TIME = {"Cache-Control": "no-cache"}
A_DAY = {"Cache-Control": "max-age=86400"}
WRAPPING_RANGE_RAD = 1.7 * math.pi
"""A phase that uses more of the circle than this is shown with cyclic colours."""

Limit = Annotated[float | None, Query(description="Colour limit; chosen from the reference if left out.")]


def create_app(state: DashboardState, settings: DashboardSettings) -> FastAPI:
    """Return the application that shows `state`."""
    app = FastAPI(
        title="ptychoflow dashboard",
        description="The live state of a run. Everything here is read-only.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.add_middleware(SecureRequests, host=settings.host, allowed_hosts=settings.allowed_hosts)
    _add_page(app)
    _add_state(app, state, Feed(state, settings))
    _add_images(app, state)
    return app


def _add_page(app: FastAPI) -> None:
    plotly = Path(str(resources.files("plotly"))) / "package_data" / "plotly.min.js"

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=CHECK_EACH_TIME)

    @app.get("/plotly.min.js", include_in_schema=False)
    def charts() -> FileResponse:
        return FileResponse(plotly, media_type="text/javascript", headers=A_DAY)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def _add_state(app: FastAPI, state: DashboardState, feed: Feed) -> None:
    @app.get("/healthz", response_model=models.Health, tags=["state"])
    def health() -> models.Health:
        """Say that the dashboard is up."""
        return models.Health(run=state.run, events=state.events)

    @app.get("/api/state", response_model=models.StateUpdate, tags=["state"])
    def whole_state() -> Response:
        """Return the present and all histories; figures that are not finite are null."""
        update, _ = state.update(StateCursor(), now_s=time.time())
        return Response(update.model_dump_json(), media_type="application/json", headers=CHECK_EACH_TIME)

    @app.websocket("/ws")
    async def updates(websocket: WebSocket) -> None:
        await feed.serve(websocket)


def _add_images(app: FastAPI, state: DashboardState) -> None:
    @app.get("/api/mosaics/{perspective}/{kind}/{channel}.png", response_class=Response, tags=["images"])
    def picture(
        perspective: int,
        kind: PictureKind,
        channel: Channel,
        colour_map: ColourMap | None = None,
        lower: Limit = None,
        upper: Limit = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Return a picture of a stitched image, transparent where nothing covers it.

        The headers `X-Lower`, `X-Upper` and `X-Colour-Map` say what was used; prediction and reference share them.
        """
        shown = make_picture(state.images(perspective), kind, channel)
        if shown is None:
            raise HTTPException(404, f"perspective {perspective} has no image {kind}")
        suggested, fitting = colours_of(kind, channel, shown.limits)
        limits = _limits(lower, upper, suggested)
        colours = colour_map or fitting
        etag = f'"{state.instance}-{shown.revision}-{colours}-{limits[0]:.6g}-{limits[1]:.6g}"'
        used = {"X-Lower": f"{limits[0]:.9g}", "X-Upper": f"{limits[1]:.9g}", "X-Colour-Map": colours}
        headers = CHECK_EACH_TIME | {"ETag": etag} | used
        if if_none_match == etag:
            return Response(status_code=304, headers=headers)
        return Response(encode_png(shown.values, limits, colours), media_type="image/png", headers=headers)

    @app.get("/api/mosaics/{perspective}/{kind}/{channel}.npy", response_class=Response, tags=["images"])
    def values(perspective: int, kind: MosaicKind, channel: Channel) -> Response:
        """Return a stitched image as the edge sent it: NumPy file, float32 (y, x), NaN where nothing covers it."""
        mosaic = state.images(perspective).get(kind)
        if mosaic is None:
            raise HTTPException(404, f"perspective {perspective} has no image {kind}")
        file = io.BytesIO()
        np.save(file, mosaic.channels[channel], allow_pickle=False)
        return Response(file.getvalue(), media_type="application/octet-stream", headers=CHECK_EACH_TIME)

    @app.get("/api/colour_maps/{colour_map}.png", response_class=Response, tags=["images"])
    def colour_bar(colour_map: ColourMap) -> Response:
        """Return a colour bar, 1 pixel high, the highest colour on the right."""
        return Response(colour_bar_png(colour_map), media_type="image/png", headers=A_DAY)


def colours_of(
    kind: PictureKind, channel: Channel, limits: tuple[float, float]
) -> tuple[tuple[float, float], ColourMap]:
    """Return the limits and colour map for a picture: diverging for differences, cyclic for phases that wrap."""
    if kind in DIFFERENCES:
        return limits, ColourMap.BLUE_RED
    if channel is Channel.AMPLITUDE:
        return limits, ColourMap.GRAY
    if limits[1] - limits[0] > WRAPPING_RANGE_RAD:
        return (-math.pi, math.pi), ColourMap.TWILIGHT
    return limits, ColourMap.VIRIDIS


def _limits(lower: float | None, upper: float | None, otherwise: tuple[float, float]) -> tuple[float, float]:
    limits = (otherwise[0] if lower is None else lower, otherwise[1] if upper is None else upper)
    if not (math.isfinite(limits[0]) and math.isfinite(limits[1]) and limits[0] < limits[1]):
        raise HTTPException(422, f"colour limits {limits[0]} and {limits[1]} are not in order")
    return limits
