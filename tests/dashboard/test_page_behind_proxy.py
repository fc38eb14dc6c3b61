"""The page behind a proxy that serves it under another name and a path of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from browser import Browser, find_chromium
from page_stories import scan_story
from served_page import DESKTOP_PX, opened, served
from speaking import telemetry
from starlette.types import ASGIApp, Receive, Scope, Send
from telemetry_samples import acquired
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

PREFIX = "/beamline/ptycho"
UPSTREAM = b"127.0.0.1:8421"
PROXY = "localhost"
ADDRESSES = """[
  ...performance.getEntriesByType("resource").map((one) => one.name),
  ...[...document.querySelectorAll("a[href], img[src]")].map((one) => one.href ?? one.src),
]"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    find_chromium()
    with Browser() as browser:
        yield browser


def behind_proxy(app: ASGIApp) -> ASGIApp:
    """What proxies do unless they are told otherwise: the path is cut, and Host is that of the server behind."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = [(name, UPSTREAM if name == b"host" else value) for name, value in scope["headers"]]
            passed: MutableMapping[str, Any] = {**scope, "headers": headers, "path": scope["path"].removeprefix(PREFIX)}
            if passed["path"] == scope["path"]:
                # nothing else of this name is ours
                passed["path"] = "/not/ours"
            scope = passed
        await app(scope, receive, send)

    return proxy


def test_the_page_lives_under_a_path_of_a_proxy(browser: Browser, tmp_path: Path) -> None:
    for name in ("night", "day"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "telemetry.jsonl").write_bytes(msgspec.json.encode(telemetry(acquired(70))) + b"\n")
    with served("night", scan_story, tmp_path / "night", proxied=behind_proxy, allowed_hosts=(PROXY,)) as (url, _):
        page = url.replace("127.0.0.1", PROXY) + PREFIX[1:] + "/"
        opened(browser, page, "night", width_px=DESKTOP_PX)
        browser.wait_for("document.querySelectorAll('figure:not(.empty)').length === 6")
        browser.wait_for("document.getElementById('frame').naturalWidth > 0")
        browser.wait_for("document.querySelectorAll('.chart:not(.empty)').length > 5")
        browser.value("document.getElementById('show-path').click(); document.getElementById('runs').open = true")
        browser.wait_for("document.querySelectorAll('#run-list a').length === 2")
        assert all(one.startswith(page) for one in browser.value(ADDRESSES))
        assert browser.complaints == []
        browser.value(
            "[...document.querySelectorAll('#run-list a')].find((one) => one.textContent.includes('day')).click()"
        )
        browser.wait_for("document.getElementById('run').textContent === 'day'")
        browser.value("document.getElementById('back').click()")
        browser.wait_for("document.getElementById('run').textContent === 'night'")
        assert browser.value("location.href") == page


def test_pages_of_an_allowed_name_may_ask_and_others_may_not(tmp_path: Path) -> None:
    with served("night", scan_story, tmp_path, proxied=behind_proxy, allowed_hosts=(PROXY,)) as (url, _):
        for origin in ("https://localhost", "http://LOCALHOST:8080"):
            with connect(f"{url}{PREFIX[1:]}/ws".replace("http", "ws", 1), origin=origin, max_size=None) as viewer:
                assert json.loads(viewer.recv(20))["present"]["run"] == "night"
        for origin in ("https://evil.example", "https://localhost.evil.example", "null"):
            with pytest.raises(InvalidStatus), connect(f"{url}{PREFIX[1:]}/ws".replace("http", "ws", 1), origin=origin):
                pass
            refused = httpx.get(f"{url}{PREFIX[1:]}/healthz", headers={"Origin": origin})
            assert (refused.status_code, "dashboard.allowed_hosts" in refused.text) == (403, True)
