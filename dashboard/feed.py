"""Pushes updates to viewers over WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState, StateCursor

KEEP_ALIVE_S = 5.0
"""An update goes out at least this often, so that a viewer can tell a quiet run from a dead dashboard."""
TRY_AGAIN_LATER = 1013


class Feed:
    """Serves the viewers of one state.

    Nothing is queued: each viewer has a cursor, and an update is made of the newest state when the one before has left.
    So a slow viewer gets fewer updates, never older ones, and costs the run nothing.
    """

    def __init__(self, state: DashboardState, settings: DashboardSettings) -> None:
        self._state = state
        self._settings = settings
        self._viewers = 0

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one viewer until it leaves; an update that cannot be made ends its connection and is raised."""
        await websocket.accept()
        if self._viewers >= self._settings.max_viewers:
            await websocket.close(TRY_AGAIN_LATER, "too many viewers")
            return
        self._viewers += 1
        tasks = [asyncio.create_task(work) for work in (self._send(websocket), _wait_until_left(websocket))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._viewers -= 1
            for task in tasks:
                task.cancel()

    async def _send(self, websocket: WebSocket) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await self._send_updates(websocket)

    async def _send_updates(self, websocket: WebSocket) -> None:
        cursor, sent_at_s = StateCursor(events=-1), -KEEP_ALIVE_S
        while True:
            quiet = self._state.events == cursor.events
            if not quiet or time.monotonic() - sent_at_s >= KEEP_ALIVE_S:
                update, cursor = self._state.update(cursor, now_s=time.time())
                await websocket.send_text(update.model_dump_json())
                sent_at_s = time.monotonic()
            await asyncio.sleep(self._settings.update_interval_s)


async def _wait_until_left(websocket: WebSocket) -> None:
    """Drop what a viewer sends: the dashboard is read-only."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
