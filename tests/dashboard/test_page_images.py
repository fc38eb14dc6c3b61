"""What the page's images show, and what it says where there is nothing to show; choices that follow the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from browser import Browser, find_chromium
from page_stories import Story
from served_page import DESKTOP_PX, empty_story, opened, served
from speaking import telemetry
from telemetry_samples import acquired, mosaic, scores
from test_dashboard_files import OLD, write_images

from ptychoflow.dashboard.state import DashboardState
from ptychoflow.streaming.events import MosaicImage, MosaicKind, WeightsApplied, WeightsKept

PHASE = 'document.querySelector(\'figure[data-view="network"][data-channel="phase"]\')'
REFERENCE = 'document.querySelector(\'figure[data-view="reference"][data-channel="phase"]\')'
EMPTY = "classList.contains('empty')"
UPPER = f"{PHASE}.querySelector('.upper').textContent"
WAITING = "querySelector('.waiting').textContent"
CANVAS_BOX = f"{PHASE}.querySelector('canvas').getBoundingClientRect()"
CHANGED = "dispatchEvent(new Event('change', {bubbles: true}))"
PICK = f"Object.assign(document.getElementById('perspective'), {{value: '%s'}}).{CHANGED}"
LIMIT = f"Object.assign(document.getElementById('phase-%s'), {{value: '%s'}}).{CHANGED}"
HANG = "globalThis.askedFor = globalThis.fetch; globalThis.fetch = () => new Promise(() => {})"
NOTE = "document.getElementById('images-note').textContent"
VERSIONS = "[...document.getElementById('version').options].map((one) => one.textContent)"
OPACITIES = f"""(() => {{
  const canvas = {PHASE}.querySelector("canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const at = (y, x) => pixels[4 * (Math.round(y * canvas.height) * canvas.width + Math.round(x * canvas.width)) + 3];
  return [at(0.02, 0.5), at(0.98, 0.5), at(0.5, 0.02), at(0.5, 0.98)];
}})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    find_chromium()
    with Browser() as browser:
        yield browser


def ramp_to(highest: float) -> np.ndarray:
    return np.linspace(highest - 0.5, highest, 1200, dtype=np.float32).reshape(30, 40)


def show(state: DashboardState, kind: MosaicKind, perspective: int, phase: np.ndarray) -> None:
    event, arrays = mosaic(perspective, kind, phase + 1, phase)
    state.apply(telemetry(event), arrays)


def two_perspectives() -> Story:
    for perspective, highest in enumerate((0.0, 1.0)):
        yield mosaic(perspective, MosaicKind.FIRST_PASS, ramp_to(highest), ramp_to(highest))


def test_a_picture_is_never_shown_under_the_name_of_another(browser: Browser, tmp_path: Path) -> None:
    with served("night", two_perspectives, tmp_path) as (url, state):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        browser.wait_for(f"{UPPER}.startsWith('1.00') && !{PHASE}.{EMPTY}")
        browser.value(HANG)
        browser.value(PICK % 0)
        browser.wait_for(f"{PHASE}.{EMPTY} && {PHASE}.{WAITING} === 'loading'")
        browser.value(PICK % 1)
        browser.wait_for(f"!{PHASE}.{EMPTY}")
        browser.value(LIMIT % ("upper", "0.7"))
        assert not browser.value(f"{PHASE}.{EMPTY}"), "the same image in other colours stays meanwhile"
        browser.value(LIMIT % ("upper", ""))
        state.instance = "anotherstart"
        show(state, MosaicKind.FIRST_PASS, 0, ramp_to(0.5))
        browser.wait_for(f"{PHASE}.{EMPTY} && {PHASE}.{WAITING} === 'loading'")
        browser.value("globalThis.fetch = globalThis.askedFor; document.dispatchEvent(new Event('redraw'))")


def test_limits_that_cannot_be_used_are_said_where_the_picture_would_be(browser: Browser, tmp_path: Path) -> None:
    with served("night", two_perspectives, tmp_path) as (url, _):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        browser.wait_for(f"!{PHASE}.{EMPTY}")
        browser.value(LIMIT % ("upper", "-0.1"))
        browser.wait_for(f"{UPPER}.startsWith('−0.10') && !{PHASE}.{EMPTY}")
        browser.value(LIMIT % ("lower", "0.3"))
        browser.wait_for(f"{PHASE}.{EMPTY} && {PHASE}.{WAITING} === 'colour limits 0.3 and -0.1 are not in order'")
        browser.value(LIMIT % ("upper", "0.9"))
        browser.wait_for(f"{UPPER}.startsWith('0.90') && !{PHASE}.{EMPTY}")


def test_a_reference_that_comes_late_is_shown_with_the_image_in_the_folder(browser: Browser, tmp_path: Path) -> None:
    write_images(tmp_path, 3, ramp_to(1.0))
    with served("night", empty_story, tmp_path) as (url, state):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        show(state, MosaicKind.REFERENCE, 3, ramp_to(1.0))
        browser.wait_for(f"!{PHASE}.{EMPTY} && !{REFERENCE}.{EMPTY}")
        assert browser.complaints == []


def test_a_reference_that_comes_late_into_the_folder_is_shown(browser: Browser, tmp_path: Path) -> None:
    with served("night", empty_story, tmp_path) as (url, state):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        show(state, MosaicKind.FIRST_PASS, 8, ramp_to(0.5))
        state.apply(telemetry(scores(3, MosaicKind.FIRST_PASS, 20.0)))
        browser.wait_for("document.querySelector('#perspective option[value=\"3\"]') !== null")
        browser.value(PICK % "compared")
        browser.wait_for(f"{NOTE}.startsWith('Images appear') && {PHASE}.{EMPTY}")
        write_images(tmp_path, 3, ramp_to(1.0))
        state.apply(telemetry(acquired(10)))
        browser.wait_for(f"document.dispatchEvent(new Event('redraw')) && !{PHASE}.{EMPTY} && !{REFERENCE}.{EMPTY}")
        assert "perspective 3" in browser.value(NOTE).lower()


@pytest.mark.parametrize("is_earlier", [False, True], ids=["restarted dashboard", "earlier run"])
def test_images_in_the_folder_that_nothing_was_told_of_can_be_chosen(
    browser: Browser, tmp_path: Path, is_earlier: bool
) -> None:
    for name in ("night", "day"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "telemetry.jsonl").write_bytes(msgspec.json.encode(telemetry(acquired(70))) + b"\n")
    for perspective, highest in ((3, 1.0), (1200, 2.0)):
        write_images(tmp_path / "night", perspective, ramp_to(highest))
    watched, shown = ("day", "?run=night") if is_earlier else ("night", "")
    with served(watched, empty_story, tmp_path / watched) as (url, state):
        state.apply(telemetry(acquired(70)))
        opened(browser, url + shown, "night", width_px=DESKTOP_PX)
        # its colours are those of the reference, half as high
        browser.wait_for(f"!{PHASE}.{EMPTY} && {UPPER}.startsWith('1.0')")
        assert browser.value("[...document.getElementById('perspective').options].map((one) => one.value)") == [
            "newest", "compared", "1200", "3",
        ]  # fmt: skip
        browser.value(PICK % 3)
        browser.wait_for(f"!{PHASE}.{EMPTY} && {UPPER}.startsWith('0.5')")
        assert "perspective 3" in browser.value(NOTE).lower()


def weak_story() -> Story:
    phase = np.linspace(-0.004, 0.004, 1200, dtype=np.float32).reshape(30, 40)
    phase[:10, :10], phase[:10, 30:], phase[20:, :] = -2.0, 3.0, 0.001
    yield mosaic(0, MosaicKind.FIRST_PASS, phase + 1, phase)


def test_weak_phases_and_what_lies_beyond_the_colours_are_told_as_they_are(browser: Browser, tmp_path: Path) -> None:
    with served("weak", weak_story, tmp_path) as (url, _):
        opened(browser, url, "weak", width_px=DESKTOP_PX)
        browser.wait_for(f"!{PHASE}.{EMPTY}")
        for end, limit in (("lower", "-0.004"), ("upper", "0.004")):
            browser.value(LIMIT % (end, limit))
        browser.wait_for(f"{UPPER} === '0.0040 rad' && {PHASE}.querySelector('.lower').textContent === '−0.0040'")
        x, y, width, height = browser.value(f"(({{x, y, width, height}}) => [x, y, width, height])({CANVAS_BOX})")
        for share_y, share_x, told in (
            (0.1, 0.1, "≤ −0.0040 rad"),
            (0.1, 0.9, "≥ 0.0040 rad"),
            (0.9, 0.5, "0.0010 rad"),
        ):
            at = {"x": x + share_x * width, "y": y + share_y * height}
            browser.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
            browser.wait_for(f"{PHASE}.querySelector('.value').textContent === '{told}'", timeout_s=15)
        browser.value(LIMIT % ("lower", "") + ";" + LIMIT % ("upper", ""))
        placeholder = browser.wait_for("document.getElementById('phase-upper').placeholder")
        assert float(placeholder) == pytest.approx(3.0, abs=0.01)


def oblong_story() -> Story:
    phase = np.linspace(0, 1, 100 * 200, dtype=np.float32).reshape(100, 200)
    info = MosaicImage(0, MosaicKind.FIRST_PASS, 1, (0.0, 0.0), (17.2e-9, 8.6e-9))
    yield info, {"amplitude": phase + 1, "phase": phase}


def test_pixels_that_are_not_square_are_drawn_as_they_are(browser: Browser, tmp_path: Path) -> None:
    with served("oblong", oblong_story, tmp_path) as (url, _):
        opened(browser, url, "oblong", width_px=DESKTOP_PX)
        browser.wait_for(f"!{PHASE}.{EMPTY} && {OPACITIES}.every((one) => one === 255)")
        assert "100 × 200 pixels of 17.2 nm × 8.6 nm." in browser.value(NOTE)
        x, y, width, height = browser.value(f"(({{x, y, width, height}}) => [x, y, width, height])({CANVAS_BOX})")
        assert width / height == pytest.approx(1.0, abs=0.02)
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + width / 4, y=y + height / 2)
        browser.wait_for(f"{NOTE}.includes('Pointer')")
        found = browser.value(f"{NOTE}.match(/Pointer at y (\\d+) nm, x (\\d+) nm/)?.slice(1).map(Number)")
        assert found == pytest.approx([860, 430], abs=12)
        assert browser.complaints == []


def test_the_list_of_versions_follows_what_the_edge_keeps_and_uses(browser: Browser, tmp_path: Path) -> None:
    with served("night", empty_story, tmp_path) as (url, state):
        opened(browser, url, "night", width_px=DESKTOP_PX)

        def say(*events: WeightsKept | WeightsApplied) -> None:
            for event in events:
                state.apply(telemetry(event))

        say(WeightsKept([2, 3, 4]), WeightsApplied(4))
        browser.wait_for(f"{VERSIONS}.join('; ') === 'version 4, in use; version 3; version 2'")
        say(WeightsApplied(2))
        browser.wait_for(f"{VERSIONS}.join('; ') === 'version 4; version 3; version 2, in use'")
        say(WeightsKept([2, 4, 5]))
        browser.wait_for(f"{VERSIONS}.join('; ') === 'version 5; version 4; version 2, in use'")


NO_JSON = """{
  const asked = globalThis.fetch;
  const broken = () => Promise.resolve(new Response("<h1>Bad gateway</h1>", {status: 502}));
  globalThis.fetch = (path) => path.startsWith("api/state") ? broken() : asked(path);
}"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [("", "was written by another version of ptychoflow"), (NO_JSON, "the dashboard answered with status 502")],
    ids=["another version", "no JSON"],
)
def test_from_a_run_that_cannot_be_opened_another_one_can(
    browser: Browser, tmp_path: Path, script: str, reason: str
) -> None:
    good = msgspec.json.encode(telemetry(acquired(70))) + b"\n"
    for name, log in (("night", good), ("old", OLD)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "telemetry.jsonl").write_bytes(log)
    with served("night", empty_story, tmp_path / "night") as (url, _):
        added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        opened(browser, f"{url}?run=old", "old", width_px=DESKTOP_PX)
        browser.wait_for(f"document.getElementById('connection').textContent.includes({json.dumps(reason)})")
        assert browser.value("document.getElementById('run-state').textContent") == "not opened"
        assert not browser.value("document.getElementById('back').hidden")
        browser.value("document.getElementById('runs').open = true")
        listed = "[...document.querySelectorAll('#run-list a')]"
        browser.wait_for(f"{listed}.length === 2")
        assert browser.value(f"{listed}.find((one) => one.ariaCurrent === 'page').getAttribute('href')") == "./?run=old"
        browser.value("document.getElementById('back').click()")
        browser.wait_for("document.getElementById('run').textContent === 'night'")
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
