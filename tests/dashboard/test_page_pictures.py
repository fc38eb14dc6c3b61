"""The page of a scan and of labelled images as a browser shows it: wide, on a phone, light, dark, as one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from browser import Browser, find_chromium
from page_stories import Story, classification_story, live_story, scan_story
from served_page import DESKTOP_PX, PHONE_PX, empty_story, opened, served
from speaking import of, telemetry
from support import wait_until
from telemetry_samples import acquired, scores

from ptychoflow.streaming.events import (
    EdgeCounts,
    MosaicKind,
    Part,
    PartState,
    PartStatus,
    RankCounts,
    ScanInfo,
    TaskAccuracies,
    TrainingResumed,
    ValidationLoss,
    WarningRaised,
)

VISIBLE = "filter((one) => one.checkVisibility())"
VISIBLE_PANELS = f"[...document.querySelectorAll('main section')].{VISIBLE}.map((one) => one.innerText)"
CHARTS_SHOWN = f"[...document.querySelectorAll('.chart')].{VISIBLE}"
ALL_DRAWN = f"{CHARTS_SHOWN}.length >= 7 && {CHARTS_SHOWN}.every((one) => one.querySelector('.main-svg'))"
PHASE_PIXELS = 'document.querySelector(\'figure[data-view="network"][data-channel="phase"] canvas\').toDataURL()'
TAGS = "[...document.querySelectorAll('figure figcaption')].map((one) => one.innerText).join(' ')"
OF_SCANS = ("PSNR", "SSIM", "Image quality", "Regime", "Phase retrieval", "perspective", "The probe was estimated")
OF_SCANS += ("% of the newest frames’ energy not explained",)
OF_CLASSIFICATION = ("top-1", "Accuracy", "task")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    find_chromium()
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize(
    ("name", "story", "own", "others"),
    [
        ("scan", scan_story, OF_SCANS, OF_CLASSIFICATION),
        ("classification", classification_story, OF_CLASSIFICATION, OF_SCANS),
    ],
)
@pytest.mark.parametrize(("width_px", "scheme"), [(PHONE_PX, "light"), (DESKTOP_PX, "dark")])
def test_the_page_shows_its_own_pipeline_whole_and_breaks_no_rule(
    browser: Browser,
    tmp_path: Path,
    name: str,
    story: Callable[[], Story],
    own: tuple[str, ...],
    others: tuple[str, ...],
    width_px: int,
    scheme: str,
) -> None:
    with served(name, story, tmp_path) as (url, _):
        opened(browser, url, name, width_px=width_px, scheme=scheme)
        browser.wait_for(ALL_DRAWN)
        assert browser.value("scrollY") == 0, "all charts are drawn, though those below were never in view"
        text = "\n".join(browser.value(VISIBLE_PANELS))
        assert [word for word in own if word not in text] == []
        assert [word for word in others if word in text] == []
        assert browser.value("document.documentElement.scrollWidth") <= width_px
        assert len(browser.picture()) > 20_000
        browser.value("document.getElementById('theme').click()")
        browser.wait_for("document.documentElement.dataset.theme === 'light'")
        browser.value("localStorage.clear()")
        assert browser.complaints == []


def test_a_detectors_scan_says_how_far_it_is_though_nobody_knows_its_end(browser: Browser, tmp_path: Path) -> None:
    with served("live", live_story, tmp_path) as (url, _):
        opened(browser, url, "live", width_px=DESKTOP_PX)
        browser.wait_for(
            "document.getElementById('frames-short').textContent === '1 075, perspective 2, frame 240 of 400'"
        )
        assert browser.value("document.getElementById('progress').style.width") == "60%"
        browser.wait_for(f"{TAGS}.includes('preview')")
        ledger = browser.value("document.getElementById('ledger').innerText")
        for said in (
            "Without a place\n35",
            "Never came\n20",
            "21 without a position that came in time; 14 came when their series was over; "
            "20 never came, though later ones did.",
        ):
            assert said in ledger
        without_path = browser.value(PHASE_PIXELS)
        browser.value("document.getElementById('show-path').click()")
        browser.wait_for(f"{PHASE_PIXELS} !== {json.dumps(without_path)}")
        (tmp_path / "live.png").write_bytes(browser.picture())
        assert (tmp_path / "live.png").stat().st_size > 20_000
        assert browser.complaints == []


def test_a_run_that_has_said_nothing_yet_says_what_it_waits_for(browser: Browser, tmp_path: Path) -> None:
    with served("empty", empty_story, tmp_path) as (url, _):
        opened(browser, url, "empty", width_px=PHONE_PX)
        text = "\n".join(browser.value(VISIBLE_PANELS))
        for waiting in ("No frame yet", "waiting for the network’s first weights", "Curves appear as the run goes on"):
            assert waiting in text
        assert browser.value(f"{CHARTS_SHOWN}.length") == 0
        assert browser.complaints == []


def test_what_a_killed_part_ended_with_is_not_called_lost(browser: Browser, tmp_path: Path) -> None:
    with served("cut", empty_story, tmp_path) as (url, state):
        opened(browser, url, "cut", width_px=PHONE_PX)
        killed = of(Part.TRAINER, PartStatus(PartState.FAILED, "a rank was killed"))
        for number, said in enumerate((acquired(100), RankCounts(70, 0, 0, 0), killed)):
            state.apply(telemetry(said, 1.7e9 + number))
        browser.wait_for("document.querySelector('.verdict')?.dataset.verdict === 'wrong'")
        ledger = browser.value("document.getElementById('ledger').innerText")
        assert "Not known of\n10" in ledger
        assert "the end of 10 is not known, as no last count came from the acquisition and rank 0 of the" in ledger


def test_a_page_that_loads_itself_anew_while_it_is_asked_is_asked_again(browser: Browser) -> None:
    browser.open("about:blank")
    left = "(window.name = 'left', location.reload(), new Promise(() => {}))"
    assert browser.wait_for(f"window.name === 'left' ? 'again' : {left}") == "again"


def test_the_run_that_is_watched_stays_live_under_its_own_name_too(browser: Browser, tmp_path: Path) -> None:
    """An address kept from when it was an earlier run, before it was resumed."""
    frames = "document.getElementById('frames-short').textContent"
    with served("resumed", empty_story, tmp_path) as (url, state):
        state.apply(telemetry(acquired(100), 1.7e9))
        opened(browser, f"{url}?run=resumed", "resumed", width_px=DESKTOP_PX)
        browser.wait_for(f"{frames} === '100'")
        state.apply(telemetry(acquired(200), 1.7e9 + 1))
        browser.wait_for(f"{frames} === '200'", timeout_s=10.0)
        assert not browser.value("document.getElementById('back').checkVisibility()"), "it is the live run"
        assert browser.complaints == []


def test_latencies_that_are_not_known_are_not_shown_as_none_at_all(browser: Browser, tmp_path: Path) -> None:
    with served("resumed", empty_story, tmp_path) as (url, state):
        for number, latency_ms in enumerate((math.nan, 250.0)):
            counts = EdgeCounts(100 + number, 0, 0, 0.0, latency_ms, latency_ms)
            state.apply(telemetry(counts, 1.7e9 + number))
        opened(browser, url, "resumed", width_px=DESKTOP_PX)
        browser.wait_for("document.getElementById('chart-latency').data?.length === 2")
        drawn = browser.value("document.getElementById('chart-latency').data.map((trace) => trace.y)")
        assert drawn == [[None, 0.25]] * 2
        state.apply(telemetry(EdgeCounts(102, 0, 0, 0.0, math.nan, math.nan), 1.7e9 + 2))
        browser.wait_for("document.getElementById('rates').innerText.includes('median\\n–')")


def test_a_chart_follows_what_changes_before_its_last_point(browser: Browser, tmp_path: Path) -> None:
    """Final weights sharpen the newest perspective first, and then the one before."""
    shown = "document.getElementById('chart-psnr').data.find((trace) => trace.name === 'refreshed').y.join()"
    with served("sharpened", empty_story, tmp_path) as (url, state):
        for number, psnr_db in enumerate((20.0, 21.0)):
            state.apply(telemetry(scores(number, MosaicKind.REFRESHED, psnr_db), 1.7e9 + number))
        opened(browser, url, "sharpened", width_px=DESKTOP_PX)
        browser.value("document.querySelector('input[name=across][value=perspective]').click()")
        browser.wait_for(f"{shown} === '20,21'")
        state.apply(telemetry(scores(0, MosaicKind.REFRESHED, 24.0), 1.7e9 + 2))
        browser.wait_for(f"{shown} === '24,21'", timeout_s=30.0)


def test_long_names_stay_within_a_phone(browser: Browser, tmp_path: Path) -> None:
    name, width = "n" * 200, "document.documentElement.scrollWidth"

    def story_of_a_long_name() -> Story:
        for said, arrays in live_story():
            if isinstance(said, ScanInfo):
                yield msgspec.structs.replace(said, source=f"/data/{name}.h5", notes=[name]), arrays
            else:
                yield said, arrays
        yield of(Part.EDGE, WarningRaised(name)), {}
        yield of(Part.TRAINER, PartStatus(PartState.RUNNING, name)), {}

    run = tmp_path / name
    run.mkdir()
    (run / "telemetry.jsonl").write_bytes(b"")
    with served(name, story_of_a_long_name, run) as (url, _):
        opened(browser, url, name, width_px=PHONE_PX)
        browser.wait_for(f"document.getElementById('images-note').textContent.includes('{name}')")
        browser.value("document.getElementById('runs').open = true")
        browser.wait_for("document.getElementById('run-list').childElementCount === 1")
        assert browser.value(width) <= PHONE_PX
        opened(browser, f"{url}?run={'m' * 200}", "m" * 200, width_px=PHONE_PX)
        browser.wait_for("document.getElementById('connection').innerText.includes('cannot be opened')")
        assert browser.value(width) <= PHONE_PX


def test_a_style_written_as_text_is_refused_wherever_it_comes_from(browser: Browser, tmp_path: Path) -> None:
    with served("empty", empty_story, tmp_path) as (url, _):
        opened(browser, url, "empty", width_px=DESKTOP_PX)
        browser.value("document.body.insertAdjacentHTML('beforeend', '<p id=\"styled\" style=\"color: red\">x</p>')")
        assert browser.value("document.getElementById('styled').style.color") == ""
        wait_until(lambda: browser.value("1") and any("style" in one for one in browser.complaints))


def test_the_page_forgets_what_a_resume_undoes(browser: Browser, tmp_path: Path) -> None:
    rows = "[...document.querySelectorAll('.tasks tbody tr')].map((row) => row.cells[4].textContent)"
    losses = "document.getElementById('chart-loss').data[1].x.length"
    with served("classification", classification_story, tmp_path) as (url, state):
        opened(browser, url, "classification", width_px=DESKTOP_PX)
        browser.wait_for(f"{rows}[2] === '0.920' && {losses} === 3")
        state.apply(telemetry(TrainingResumed(125), 1.7e9 + 1000))
        browser.wait_for(f"{rows}[2] === '–' && {rows}[1] === '0.920' && {losses} === 2")
        state.apply(telemetry(TaskAccuracies(2, 180, {2: 0.5}, {2: 0.5}), 1.7e9 + 1001))
        browser.wait_for(f"{rows}[2] === '0.500'")
        assert browser.complaints == []


def test_a_night_of_perspectives_leaves_something_to_see_of_each_loss(browser: Browser, tmp_path: Path) -> None:
    """The gaps between cells that are smaller than a gap would hide all of them."""
    gaps = "(({xgap, ygap}) => [xgap, ygap])(document.getElementById('chart-forgetting').data[0])"

    def night_story() -> Story:
        for after in range(60):
            losses = dict.fromkeys(range(after + 1), 0.2 - 0.001 * after)
            yield ValidationLoss(after, after, losses, 0.2, 0.3), {}

    with served("night", night_story, tmp_path) as (url, _):
        opened(browser, url, "night", width_px=DESKTOP_PX)
        browser.wait_for("document.querySelector('#chart-forgetting .main-svg') !== null")
        assert browser.value(gaps) == [0, 0]


@pytest.mark.parametrize("losses", [(0.24, 0.23, 0.22), (0.9, 0.3, 0.012)], ids=["close", "far"])
def test_the_losses_have_numbers_beside_them(browser: Browser, tmp_path: Path, losses: tuple[float, ...]) -> None:
    """Also those that lie between two round ones, as in most short runs."""

    def short_story() -> Story:
        for after, loss in enumerate(losses):
            yield ValidationLoss(after, after, {after: loss}, loss, losses[0] + 0.01), {}

    with served("short", short_story, tmp_path) as (url, _):
        opened(browser, url, "short", width_px=DESKTOP_PX)
        browser.wait_for("document.querySelector('#chart-loss .main-svg') !== null")
        ticks = "[...document.querySelectorAll('#chart-loss .ytick text')].map((one) => Number(one.textContent))"
        browser.wait_for(f"{ticks}.length >= 3")
        shown = browser.value(ticks)
        assert all(min(losses) <= tick <= max(losses) + 0.01 for tick in shown)
        assert len(shown) <= 10
        assert browser.complaints == []


def test_a_run_that_failed_says_so_and_waits_for_nothing_any_more(browser: Browser, tmp_path: Path) -> None:
    said = [acquired(100), of(Part.TRAINER, PartStatus(PartState.FAILED, "no such weights"))]
    for name, events in (("now", said[:1]), ("failed", said)):
        (tmp_path / name).mkdir()
        lines = [msgspec.json.encode(telemetry(one, 1.7e9 + number)) for number, one in enumerate(events)]
        (tmp_path / name / "telemetry.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with served("now", empty_story, tmp_path / "now") as (url, _):
        opened(browser, f"{url}?run=failed", "failed", width_px=PHONE_PX)
        browser.wait_for("document.getElementById('run-state').textContent === 'earlier run, failed'")
        assert browser.value("document.getElementById('run-state').dataset.state") == "failed"
        text = "\n".join(browser.value(VISIBLE_PANELS))
        for promise in ("waiting for", "as soon as", "come with", "as the run goes on"):
            assert promise not in text
        for known in ("no image", "No frame of this was imaged", "Nothing was scored", "There is nothing to draw"):
            assert known in text
        assert browser.complaints == []
