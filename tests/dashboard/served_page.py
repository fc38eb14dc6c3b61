"""The page of a run that is told by a story, served and opened in a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from browser import Browser
from page_stories import Story
from speaking import telemetry
from starlette.types import ASGIApp
from support import free_ports, wait_until

from ptychoflow.dashboard.app import create_app
from ptychoflow.dashboard.runs import Runs
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.streaming.run_folder import RunFolder

PHONE_PX, DESKTOP_PX, HEIGHT_PX = 390, 1440, 900


def empty_story() -> Story:
    return iter(())


@contextmanager
def served(
    name: str,
    story: Callable[[], Story],
    directory: Path,
    *,
    proxied: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    allowed_hosts: tuple[str, ...] = (),
) -> Iterator[tuple[str, DashboardState]]:
    """Serve the page of a run, behind a proxy if there is one; yields its address."""
    settings = DashboardSettings(update_interval_s=0.05, allowed_hosts=allowed_hosts)
    state = DashboardState(name, settings)
    for number, (said, arrays) in enumerate(story()):
        state.apply(telemetry(said, 1.7e9 + number), arrays)
    (port,) = free_ports(1)
    app = create_app(Runs(state, RunFolder(directory), settings), settings)
    server = uvicorn.Server(uvicorn.Config(proxied(app), port=port, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}/", state
    finally:
        server.should_exit = True
        thread.join()


def opened(browser: Browser, url: str, name: str, *, width_px: int, scheme: str = "light") -> None:
    # the page before complains that its server has gone
    browser.open("about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.complaints.clear()
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width_px,
        height=HEIGHT_PX,
        deviceScaleFactor=1,
        mobile=width_px == PHONE_PX,
    )
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(url)
    browser.wait_for(f"document.getElementById('run').textContent === '{name}'")
