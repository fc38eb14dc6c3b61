"""Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
PATIENCE_S = 90.0
POLL_S = 0.05
LEFT = ("Inspected target navigated or closed", "Execution context was destroyed", "Cannot find context")
"""How Chromium's errors begin where a page is left while it is asked."""


class PageLeft(Exception):
    """The page was left while it was asked, as it leaves itself for another address or is loaded anew."""


def find_chromium() -> str:
    """Return the path of a Chromium; the test is skipped where there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this host: install the package `chromium` to test the page in a browser")


class Browser:
    """One browser process with one page. A context manager: leaving it ends all its processes."""

    def __init__(self) -> None:
        chromium = find_chromium()
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.complaints: list[str] = []
        """What the browser and the page have complained of: violations of the security policy, errors, warnings."""
        self._calls = 0
        self._stack = ExitStack()
        self._page = self._stack.enter_context(self._connect())
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._family():
            process.kill()
        self._process.wait()
        self._stack.close()
        self._profile.cleanup()

    def stop(self) -> None:
        """Stop all its processes where they are: a viewer that reads nothing any more."""
        for process in self._family():
            process.send_signal(signal.SIGSTOP)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol; return its result.

        Raises:
            PageLeft: the page was left meanwhile.
        """
        self._calls += 1
        self._page.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._page.recv(PATIENCE_S))
            if answer.get("id") == self._calls:
                if answer.get("error", {}).get("message", "").startswith(LEFT):
                    raise PageLeft(answer["error"]["message"])
                assert "error" not in answer, answer
                return answer["result"]
            self._hear(answer)

    def _hear(self, event: dict[str, Any]) -> None:
        said = event.get("params", {})
        match event.get("method"):
            case "Log.entryAdded" if said["entry"]["level"] in ("warning", "error"):
                entry = said["entry"]
                self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}".rstrip())
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["type"] in ("warning", "error", "assert"):
                self.complaints.append(json.dumps(said["args"]))

    def size(self, width_px: int, height_px: int) -> None:
        """Give the page another size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )

    def picture(self) -> bytes:
        """Return a picture of the whole page, as PNG."""
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = PATIENCE_S) -> Any:
        """Wait until a JavaScript expression is true; return its value.

        One that fails counts as not yet true, as does one of a page that is left meanwhile.
        """
        deadline_s = time.monotonic() + timeout_s
        guarded = f"(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()"
        while True:
            with contextlib.suppress(PageLeft):
                if value := self.value(guarded):
                    return value
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{expression} did not come true within {timeout_s} s")
            time.sleep(POLL_S)

    def _connect(self) -> ClientConnection:
        port_file = Path(self._profile.name) / "DevToolsActivePort"
        deadline_s = time.monotonic() + PATIENCE_S
        while not (port_file.exists() and port_file.read_text()):
            assert self._process.poll() is None, "Chromium has ended"
            assert time.monotonic() < deadline_s, "Chromium does not answer"
            time.sleep(POLL_S)
        port = port_file.read_text().splitlines()[0]
        targets = httpx.get(f"http://127.0.0.1:{port}/json", timeout=PATIENCE_S).json()
        page = next(target for target in targets if target["type"] == "page")
        return connect(page["webSocketDebuggerUrl"], max_size=None)

    def _family(self) -> list[psutil.Process]:
        try:
            leader = psutil.Process(self._process.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
