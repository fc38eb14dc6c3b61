"""What the page says where something is not to be had, and that whoever uses the keyboard sees where they are."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_chromium
from page_stories import scan_story
from PIL import Image
from served_page import DESKTOP_PX, empty_story, opened, served
from speaking import of, telemetry
from telemetry_samples import mosaic, quality, ramp

from ptychoflow.streaming.events import EdgeCounts, FrameTaken, HeldOutScores, MosaicKind, Part, WarningRaised

NOTE = "document.getElementById('images-note').textContent"
SAVING = "document.getElementById('saving').textContent"
PICK = "Object.assign(document.getElementById('perspective'), {value: '%s'}).dispatchEvent(new Event('change'))"
ACCENT = (0x1F, 0x5F, 0xBF)
"""Of the light scheme: what has the focus is framed in it."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    find_chromium()
    with Browser() as browser:
        yield browser


def test_files_and_paths_that_are_not_to_be_had_are_said_so(browser: Browser, tmp_path: Path) -> None:
    with served("night", empty_story, tmp_path) as (url, state):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        browser.wait_for(f"{SAVING} === 'No image yet.'")
        event, arrays = mosaic(0, MosaicKind.FIRST_PASS, ramp(), ramp())
        state.apply(telemetry(event), arrays)
        browser.wait_for(f"{SAVING}.startsWith('NetworkHDF5')")
        told = "'The scan path of this perspective is not at hand.'"
        assert not browser.value(f"{NOTE}.includes({told})")
        browser.value("document.getElementById('show-path').click()")
        browser.wait_for(f"{NOTE}.includes({told})")
        browser.value("document.getElementById('show-path').click()")


ONE_FAILURE = """{
  const asked = globalThis.fetch;
  globalThis.failures = 0;
  globalThis.fetch = (path) =>
    String(path).startsWith("api/positions") && !globalThis.failures++ ? Promise.reject(new TypeError()) : asked(path);
}"""


def test_a_path_that_did_not_come_is_asked_for_again(browser: Browser, tmp_path: Path) -> None:
    pixels = "document.querySelector('figure canvas').toDataURL()"
    with served("scan", scan_story, tmp_path) as (url, _):
        opened(browser, url, "scan", width_px=DESKTOP_PX)
        browser.wait_for("document.querySelectorAll('figure:not(.empty)').length === 6")
        browser.value(ONE_FAILURE)
        without = browser.value(pixels)
        browser.value("document.getElementById('show-path').click()")
        browser.wait_for(
            f"failures > 0 && (document.dispatchEvent(new Event('redraw')), {pixels} !== {json.dumps(without)})"
        )
        assert browser.value("failures") == 2
        browser.value("document.getElementById('show-path').click()")


def test_a_token_that_no_header_can_hold_is_none_of_this_run(browser: Browser, tmp_path: Path) -> None:
    said = "document.getElementById('command-result').textContent"
    with served("night", empty_story, tmp_path) as (url, _):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        browser.value("document.getElementById('token').value = 'pasted \u2013 with a dash\u2026'")
        browser.value("document.getElementById('locked').requestSubmit()")
        browser.wait_for(f"{said} === 'That is not the token of this run.'")
        assert browser.value("document.getElementById('unlocked').hidden && sessionStorage.length === 0")


@pytest.mark.parametrize(
    ("frame", "told"), [(0.0375, "0.0375"), (7, "7"), (2.5, "2.5"), (4111.4, "4\u202f111"), (0, "0")], ids=str
)
def test_the_brightest_pixel_of_normalised_frames_is_not_0(
    browser: Browser, tmp_path: Path, frame: float, told: str
) -> None:
    with served("faint", empty_story, tmp_path) as (url, state):
        opened(browser, url, "faint", width_px=DESKTOP_PX)
        pixels = np.linspace(0, frame, 64, dtype=np.float32).reshape(8, 8)
        state.apply(telemetry(FrameTaken(0, 3, 1)), {"diffraction": pixels})
        browser.wait_for(f"document.getElementById('frame-upper').textContent === '{told}'")
        assert f"brightest pixel {told} counts" in browser.value("document.getElementById('frame-note').textContent")


def test_held_out_frames_are_those_of_the_perspective_that_is_shown_or_the_newest(
    browser: Browser, tmp_path: Path
) -> None:
    held = "[...document.querySelectorAll('#quality h3')].map((title) => title.textContent).at(-1)"
    with served("night", empty_story, tmp_path) as (url, state):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        for perspective in range(4):
            event, arrays = mosaic(perspective, MosaicKind.FIRST_PASS, ramp(), ramp())
            state.apply(telemetry(event), arrays)
        for perspective, frames in ((0, 30), (2, 50)):
            state.apply(telemetry(HeldOutScores(perspective, frames, quality(22.8), quality(15.1), 1)))
        for shown, told, frames in ((0, 0, 30), (2, 2, 50), (0, 0, 30), (1, 2, 50), (3, 2, 50)):
            browser.wait_for(f"document.querySelector('#perspective option[value=\"{shown}\"]') !== null")
            browser.value(PICK % shown)
            browser.wait_for(f"{held} === 'Held out in perspective {told}: {frames} frames never learned from'")


def test_slow_rates_are_not_0(browser: Browser, tmp_path: Path) -> None:
    with served("slow", empty_story, tmp_path) as (url, state):
        opened(browser, url, "slow", width_px=DESKTOP_PX)
        state.apply(telemetry(EdgeCounts(2, 0, 0, 0.04, 60.0, 90.0)))
        browser.wait_for("document.getElementById('rates').innerText.replace(/\\s+/g, ' ').includes('imaged 0.04 /s')")


def test_no_warning_is_out_of_reach(browser: Browser, tmp_path: Path) -> None:
    with served("night", empty_story, tmp_path) as (url, state):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        for number in range(11):
            state.apply(telemetry(of(Part.EDGE, WarningRaised(f"warning number {number}")), 1.7e9 + number))
        browser.wait_for("document.querySelector('#warnings summary')?.textContent === '3 older'")
        assert not browser.value("document.getElementById('warnings').innerText.includes('warning number 2')")
        browser.value("document.querySelector('#warnings summary').click()")
        browser.wait_for("document.getElementById('warnings').innerText.includes('warning number 2')")
        state.apply(telemetry(of(Part.EDGE, WarningRaised("warning number 11")), 1.8e9))
        browser.wait_for("document.querySelector('#warnings summary').textContent === '4 older'")
        assert browser.value("document.getElementById('warnings').innerText.includes('warning number 3')")


def framed(browser: Browser, selector: str) -> float:
    """Return what share of a line around an element, just beyond its edge, has the accent's colour."""
    box = browser.value(
        f"(({{x, y, width, height}}) => [x + scrollX, y + scrollY, width, height])({selector}.getBoundingClientRect())"
    )
    x, y, width, height = (round(one) for one in box)
    clip = {"x": x - 6, "y": y - 6, "width": width + 12, "height": height + 12, "scale": 1}
    png = base64.b64decode(browser.call("Page.captureScreenshot", format="png", clip=clip)["data"])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    is_accent = np.abs(pixels.astype(int) - ACCENT).sum(axis=-1) < 24
    return float(np.mean([is_accent[:6].any(axis=0).mean(), is_accent[-6:].any(axis=0).mean()]))


def test_whoever_uses_the_keyboard_sees_which_switch_has_the_focus(browser: Browser, tmp_path: Path) -> None:
    with served("scan", scan_story, tmp_path) as (url, _):
        opened(browser, url, "scan", width_px=DESKTOP_PX)
        browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
        for name in ("pass", "compare", "across"):
            switch = f"document.querySelector('.switch:has([name={name}])')"
            browser.value(f"{switch}.scrollIntoView({{block: 'center'}})")
            assert framed(browser, switch) < 0.1
            browser.value(f"document.querySelector('input[name={name}]:checked').focus({{focusVisible: true}})")
            assert framed(browser, switch) > 0.9
