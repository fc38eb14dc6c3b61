"""Runs the dashboard: telemetry in, web page out."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from ptychoflow.dashboard.address import page_url
from ptychoflow.dashboard.app import CommandAccess, create_app
from ptychoflow.dashboard.http_connection import HttpConnection
from ptychoflow.dashboard.runs import Runs, read_run
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState
from ptychoflow.dashboard.watched_thread import WatchedThread
from ptychoflow.streaming.codec import Decoded
from ptychoflow.streaming.commands import CommandSender
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PartState, PartStatus, Telemetry
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.seldom import Seldom
from ptychoflow.streaming.settings import NetworkSettings, RunContext, is_loopback
from ptychoflow.streaming.telemetry import TelemetrySender, TelemetrySubscriber
from ptychoflow.streaming.telemetry_log import TelemetryLog, log_identity

log = logging.getLogger(__name__)
SELDOM = Seldom()
"""For what uvicorn says of requests that are none, or too many."""

POLL_S = 0.1
SUBSCRIBED_S = 3.0
"""A subscription takes a moment to reach the hub; by now it has."""
LAST_WORDS_S = 1.0
SHUTDOWN_S = 3
MAX_CONNECTIONS = 512


def serve_dashboard(
    settings: DashboardSettings,
    *,
    network: NetworkSettings,
    run: RunContext,
    stop: threading.Event,
    token: str,
    on_served: Callable[[str], None] | None = None,
) -> None:
    """Serve the page of a run until `stop` is set. Blocks.

    What the run's folder already holds of telemetry is read first, so that a dashboard started late shows the history.
    Who knows `token` may command the run. `on_served` is told the page's address once it is there.

    Raises:
        UserError: the port is in use or the host is not this machine's.
    """
    with open_listener(settings) as listener, closing(CommandSender(network)) as commands:
        url = page_url(settings.host, listener.getsockname()[1])
        if not is_loopback(settings.host):
            log.warning("the dashboard at %s is not on loopback: everybody who reaches this host can watch", url)
        state = DashboardState(run.name, settings, controllable=True)
        runs = Runs(state, run.folder, settings)
        app = create_app(runs, settings, commands=CommandAccess(commands, token))
        intake = _Intake(state, network, run.folder.telemetry)
        sender = TelemetrySender(network, part=Part.DASHBOARD)
        server = _start_server(app, listener)
        try:
            log.info("dashboard at %s", url)
            if on_served is not None:
                on_served(url)
            sender.send(PartStatus(PartState.RUNNING, url))
            while not stop.wait(POLL_S):
                server.check()
                intake.check()
            sender.send(PartStatus(PartState.DONE, "stopped"))
            intake.close()
            # viewers get what came last before their connections end
            time.sleep(2 * settings.update_interval_s)
        finally:
            server.close()
            intake.close()
            sender.close()


def serve_earlier_run(
    settings: DashboardSettings, *, folder: RunFolder, stop: threading.Event, on_served: Callable[[str], None]
) -> None:
    """Serve the page of a run that nobody works on any more until `stop` is set; it can only be looked at. Blocks.

    Args:
        settings: of the page.
        folder: of the run.
        stop: ends it.
        on_served: told the page's address.

    Raises:
        UserError: the folder is not that of a run, the port is in use, or the host is not this machine's.
    """
    log_file = folder.telemetry
    if not log_file.is_file():
        raise UserError(
            f"{folder.path} is not the folder of a run: it holds no {log_file.name}; name a folder runs/<name>"
        )
    with open_listener(settings) as listener:
        runs = Runs(read_run(RunFolder(folder.path.resolve()), settings), folder, settings)
        server = _start_server(create_app(runs, settings), listener)
        try:
            on_served(page_url(settings.host, listener.getsockname()[1]))
            while not stop.wait(POLL_S):
                server.check()
        finally:
            server.close()


def open_listener(settings: DashboardSettings) -> socket.socket:
    """Return a listening socket.

    Raises:
        UserError: the port is in use or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except OSError as error:
        raise UserError(
            f"dashboard: cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another port (of a run: --set dashboard.port=N), or 0 for a free one"
        ) from error


class _Intake(WatchedThread):
    """Feeds telemetry to the state: first what the run's folder holds, then what arrives."""

    def __init__(self, state: DashboardState, network: NetworkSettings, history: Path) -> None:
        super().__init__("dashboard-telemetry")
        self._state = state
        self._path, self._history = history, TelemetryLog(history)
        self._streamed_from: int | None = None
        self._stop = threading.Event()
        self._subscriber = TelemetrySubscriber(network)
        self._thread.start()

    def close(self) -> None:
        """Take in what has arrived, for one second at most; then stop."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        self._subscriber.close()

    def _run(self) -> None:
        self._read_history()
        subscribed_at_s: float | None = time.monotonic() + SUBSCRIBED_S
        while not self._stop.is_set():
            self._take(POLL_S)
            if subscribed_at_s is not None and time.monotonic() > subscribed_at_s:
                # what came between the first reading and the subscription
                self._read_history()
                subscribed_at_s = None
        deadline_s = time.monotonic() + LAST_WORDS_S
        while self._take(POLL_S) and time.monotonic() < deadline_s:
            pass

    def _read_history(self) -> None:
        """Take in what the file holds beyond what was read of it, up to what has come over the subscription."""
        if not self._path.exists():
            return
        try:
            for telemetry in self._history:
                if self._streamed_from is not None and self._history.position >= self._streamed_from:
                    break
                self._state.apply(telemetry)
        except UserError as error:
            log.warning("the page lacks what was before: %s", error)

    def _take(self, timeout_s: float) -> bool:
        received = self._subscriber.receive(timeout_s)
        if received is not None and self._is_new(received):
            self._streamed_from = received.sequence if self._streamed_from is None else self._streamed_from
            self._state.apply(received.body, received.arrays)
        return received is not None

    def _is_new(self, received: Decoded[Telemetry]) -> bool:
        """The file holds no arrays, so an event that brings some is new in any case; so is one of another file."""
        known = received.sequence <= self._history.position and received.session == log_identity(self._path)
        return bool(received.arrays) or not known


class _Server(WatchedThread):
    """Runs uvicorn in a thread, so that signals stay with the entry point."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        super().__init__("dashboard-server")
        self._server = server
        self._listener = listener
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])


def _start_server(app: FastAPI, listener: socket.socket) -> _Server:
    logging.getLogger("uvicorn.error").addFilter(SELDOM)
    config = uvicorn.Config(
        app,
        http=HttpConnection,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws_max_size=1 << 16,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    return _Server(uvicorn.Server(config), listener)
