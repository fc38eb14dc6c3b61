"""The dashboard's web application: the page, the state, the images, and commands for those who know the token."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from ptychoflow.dashboard import models
from ptychoflow.dashboard.command_routes import command_routes
from ptychoflow.dashboard.feed import Feed
from ptychoflow.dashboard.image_routes import A_DAY, CHECK_EACH_TIME, NOT_THERE, RunName, image_routes
from ptychoflow.dashboard.metrics import metrics_text
from ptychoflow.dashboard.runs import Runs
from ptychoflow.dashboard.security import SecureRequests
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import StateCursor
from ptychoflow.streaming.commands import CommandSender
from ptychoflow.streaming.errors import UserError

STATIC = Path(__file__).with_name("static")
REFUSED_TO_ALL: dict[int | str, dict[str, Any]] = {
    400: {"description": "The header Host or Origin is malformed"},
    403: {"description": "The host name is not served here, or the request comes from another site's page"},
}
PROMETHEUS_TEXT = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(frozen=True)
class CommandAccess:
    """How commands reach the run, and what those who give them must know."""

    sender: CommandSender
    token: str


def create_app(runs: Runs, settings: DashboardSettings, *, commands: CommandAccess | None = None) -> FastAPI:
    """Return the application that shows `runs`; without `commands` it is read-only."""
    app = FastAPI(
        title="ptychoflow dashboard",
        description="The live state of a run. Everything but the commands is read-only and needs no token.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=REFUSED_TO_ALL,
    )
    app.add_middleware(SecureRequests, host=settings.host, allowed_hosts=settings.allowed_hosts)
    app.add_exception_handler(UserError, _refuse)
    _add_page(app)
    _add_state(app, runs, Feed(runs.watched.state, settings))
    app.include_router(image_routes(runs))
    if commands is not None:
        app.include_router(command_routes(commands.sender, commands.token))
    return app


class _CheckedFiles(StaticFiles):
    """Files that a browser asks for anew each time, so that modules of an earlier version never meet a new page."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file, or that the browser has it already."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(CHECK_EACH_TIME)
        return response


def _refuse(_request: Request, error: Exception) -> Response:
    """Answer with what a user can act on: that a run was written by another version, say."""
    return JSONResponse({"detail": str(error)}, status_code=409)


def _add_page(app: FastAPI) -> None:
    plotly = Path(str(resources.files("plotly"))) / "package_data" / "plotly.min.js"

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=CHECK_EACH_TIME)

    @app.get("/plotly.min.js", include_in_schema=False)
    def charts() -> FileResponse:
        return FileResponse(plotly, media_type="text/javascript", headers=A_DAY)

    app.mount("/static", _CheckedFiles(directory=STATIC), name="static")


def _add_state(app: FastAPI, runs: Runs, feed: Feed) -> None:
    watched = runs.watched.state

    @app.get("/healthz", response_model=models.Health, tags=["state"])
    def health() -> models.Health:
        """Say that the dashboard is up."""
        return models.Health(run=watched.run, events=watched.events)

    @app.get("/api/state", response_model=models.StateUpdate, tags=["state"], responses=NOT_THERE)
    def whole_state(run: RunName = None) -> Response:
        """Return the present and all histories; figures that are not finite are null."""
        opened = runs.open(run)
        if opened is None:
            raise HTTPException(404, f"there is no run {run}")
        update, _ = opened.state.update(StateCursor(), now_s=time.time())
        return Response(update.model_dump_json(), media_type="application/json", headers=CHECK_EACH_TIME)

    @app.get("/api/runs", response_model=list[models.RunRow], tags=["state"])
    def all_runs() -> list[models.RunRow]:
        """Return the runs whose folders lie beside that of the run that is watched, newest first."""
        return runs.all()

    @app.get("/metrics", response_class=Response, tags=["state"])
    def metrics() -> Response:
        """Return the present in the text format of Prometheus."""
        return Response(metrics_text(watched), media_type=PROMETHEUS_TEXT)

    @app.websocket("/ws")
    async def updates(websocket: WebSocket) -> None:
        await feed.serve(websocket)
