"""The page in headless Chromium, against a real run: the tests follow the run from its first image to its summary."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser, find_chromium
from support import wait_until

from ptychoflow.streaming.commands import AnyCommand, CommandSender, HubAway, Pause
from ptychoflow.streaming.settings import NetworkSettings

SETTINGS: dict[str, Any] = {
    "source.kind": "simulation",
    "source.perspectives": 4,
    "source.frames_per_perspective": 120,
    "source.frame_shape_px": [32, 32],
    "source.seed": 5,
    "acquisition.rate_hz": 30.0,
    "acquisition.roles.hold_out": "last_perspective",
    "retrieval.source": "simulated",
    "retrieval.target_shape_px": [16, 16],
    "trainer.batch_size": 8,
    "trainer.finish_s": 1.0,
    "trainer.publish_every_s": 1.0,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 300,
    "trainer.buffer.representatives": 8,
    "trainer.buffer.candidates": 8,
    "edge.backend": "eager",
    "dashboard.port": 0,
}
START = (sys.executable, "-m", "ptychoflow", "run")
PHASE = 'document.querySelector(\'figure[data-view="network"][data-channel="phase"]\')'
PIXELS = f"{PHASE}.querySelector('canvas').toDataURL()"
SHOWN = f"!{PHASE}.classList.contains('empty') && {PHASE}.querySelector('.lower').textContent"
STATE = "document.getElementById('run-state').textContent"
FIGURES = "document.getElementById('frames-short').textContent + document.getElementById('rates').textContent"
TABLES = (
    "[...document.querySelectorAll('#quality .quality:has(table)')].map((table) => "
    "[...table.querySelectorAll('td')].map((cell) => cell.textContent.replace('−', '-')))"
)
SCROLL = "document.getElementById('history-title').scrollIntoView()"
LEGEND_ROWS = """(() => {
  const at = (part) => document.querySelector(`#chart-steps ${part}`).getBoundingClientRect();
  document.getElementById("chart-steps").scrollIntoView();
  if (at(".legend").bottom > at(".nsewdrag").top + 1) return "over the chart";
  return at(".legend").height > 40 ? "several" : "one";
})()"""
POINTS = "document.getElementById('chart-loss').data[0].x.length"


class RealRun:
    """`ptychoflow run` as a user starts it, paused before its first frame so that no test comes too late."""

    def __init__(self, directory: Path) -> None:
        assignments = [f"--set={key}={json.dumps(value)}" for key, value in SETTINGS.items()]
        self.folder = directory / "watched"
        self.errors: list[str] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ptychoflow",
                "run",
                "--name=watched",
                f"--set=run.directory={directory}",
                *assignments,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: any("token" in line for line in self.errors), timeout_s=120)
        config = tomllib.loads((self.folder / "config.toml").read_text())
        self.address = f"http://127.0.0.1:{config['dashboard']['port']}"
        with closing(CommandSender(NetworkSettings(**config["network"]))) as sender:
            wait_until(lambda: _sent(sender, Pause()), timeout_s=60)
        wait_until(self._answers, timeout_s=120)

    @property
    def token(self) -> str:
        (token,) = (found[1] for line in self.errors if (found := re.search(r"token for the controls.*: (\S+)", line)))
        return token

    def present(self) -> dict[str, Any]:
        return httpx.get(f"{self.address}/api/state", timeout=20).json()["present"]

    def acquired(self) -> int:
        return self.present()["frames"]["acquired"]

    def end(self) -> int:
        """Wait for the run's own end; return its exit status."""
        status = self.process.wait(timeout=90)
        self._reader.join()
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz").status_code == 200
        except httpx.TransportError:
            return False


def _sent(sender: CommandSender, command: AnyCommand) -> bool:
    try:
        sender.send(command)
    except HubAway:
        return False
    return True


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRun]:
    find_chromium()
    run = RealRun(tmp_path_factory.mktemp("runs"))
    yield run
    if run.process.poll() is None:
        run.process.terminate()
        run.process.wait(timeout=30)


@pytest.fixture(scope="module")
def page(run: RealRun) -> Iterator[Browser]:
    with Browser() as browser:
        browser.open(run.address)
        browser.wait_for("document.getElementById('run').textContent === 'watched'")
        yield browser


def press(page: Browser, identifier: str) -> None:
    page.value(f"document.getElementById('{identifier}').click()")


def test_commands_are_refused_without_the_token(page: Browser, run: RealRun) -> None:
    for headers in ("{}", "{Authorization: 'Bearer wrong'}", "{Cookie: 'token=wrong'}"):
        asked = (
            f"fetch('/api/commands/stop_run', {{method: 'POST', headers: {headers}}}).then((answer) => answer.status)"
        )
        assert page.value(asked) == 401
    page.value("document.getElementById('commands').open = true; document.getElementById('token').value = 'guessed'")
    page.value("document.getElementById('locked').requestSubmit()")
    page.wait_for("document.getElementById('command-result').textContent.includes('not the token')")
    assert page.value("document.getElementById('unlocked').hidden")
    assert run.process.poll() is None
    page.wait_for(f"{STATE} === 'paused'")


def test_with_the_token_the_scan_goes_on_and_is_held(page: Browser, run: RealRun) -> None:
    assert run.acquired() == 0
    page.value(f"document.getElementById('token').value = '{run.token}'")
    page.value("document.getElementById('locked').requestSubmit()")
    page.wait_for("!document.getElementById('unlocked').hidden")
    press(page, "resume")
    wait_until(lambda: run.acquired() > 150, timeout_s=60)
    press(page, "pause")
    page.wait_for(f"{STATE} === 'paused'")
    page.wait_for("!document.getElementById('resume').hidden")
    held = run.acquired()
    assert 150 < held < 480
    assert run.token not in page.value("location.href + document.cookie + JSON.stringify(localStorage)")
    events = run.present()["events"]
    wait_until(lambda: run.present()["events"] > events + 10)
    assert run.acquired() == held


def test_images_appear_and_change(page: Browser) -> None:
    page.wait_for(SHOWN, timeout_s=60)
    first = page.value(PIXELS)
    page.wait_for(f"{PIXELS} !== {json.dumps(first)}")
    assert page.value(f"{PHASE}.querySelector('.scale-bar span').textContent").endswith("µm")


def test_network_and_reference_are_compared_in_one_image(page: Browser) -> None:
    page.value("document.getElementById('perspective').value = 'compared'")
    page.value("document.querySelector('input[value=slider]').click()")
    tags = f"[...{PHASE}.querySelectorAll('.tag')].map((tag) => tag.textContent).join(' | ')"
    page.wait_for(f"{tags} === 'network | reference'")
    middle = page.value(PIXELS)
    page.value("Object.assign(document.getElementById('divider'), {value: 90}).dispatchEvent(new Event('input'))")
    page.wait_for(f"{PIXELS} !== {json.dumps(middle)}")
    page.value("document.querySelector('input[value=side]').click()")
    page.value("document.getElementById('perspective').value = 'newest'")
    page.wait_for(f"{tags} === ' | '")


def test_a_reload_keeps_history_and_the_token(page: Browser) -> None:
    page.value(SCROLL)
    before = page.wait_for(f"{POINTS} > 3 && {POINTS}")
    page.value("globalThis.old = true")
    page.call("Page.reload")
    page.wait_for(f"!globalThis.old && {SHOWN}")
    page.value(SCROLL)
    page.wait_for(f"{POINTS} >= {before}")
    assert not page.value("document.getElementById('unlocked').hidden")


def test_the_run_goes_on_when_told_to_though_a_viewer_is_stopped(page: Browser, run: RealRun) -> None:
    with Browser() as second, Browser() as third:
        for viewer in (second, third):
            viewer.open(run.address)
            viewer.wait_for(SHOWN)
        third.stop()
        held = run.acquired()
        press(page, "resume")
        page.wait_for(f"{STATE} === 'running'")
        seen = {viewer: json.dumps(viewer.value(FIGURES)) for viewer in (page, second)}
        wait_until(lambda: run.acquired() > held + 60, timeout_s=60)
        for viewer, before in seen.items():
            viewer.wait_for(f"{FIGURES} !== {before}")


def figures(*scores: dict[str, Any]) -> list[str]:
    """Return what a table of the page shows of scores of the summary."""
    return [
        format(score[name][channel], form)
        for score in scores
        for channel in ("phase", "amplitude")
        for name, form in (("psnr_db", ".2f"), ("ssim", ".3f"), ("correlation", ".2f"))
    ]


def tables_of(summary: dict[str, Any]) -> list[list[str]]:
    last, held_out = summary["perspectives"][-1], summary["held_out"]
    return [
        figures(last["refreshed"], last["constant"]),
        figures(held_out, held_out["constant"], held_out["memoriser"]),
    ]


def test_what_the_page_showed_last_is_what_the_summary_says(page: Browser, run: RealRun) -> None:
    assert run.end() == 0, run.errors[-5:]
    summary = json.loads((run.folder / "summary.json").read_text())
    assert (summary["frames"]["inferred"], summary["frames"]["lost"]) == (480, 0)
    page.wait_for("!document.getElementById('connection').hidden")
    assert "The run has ended" in page.value("document.getElementById('connection').textContent")
    wait_until(lambda: page.value(TABLES) == tables_of(summary))
    assert page.value("document.querySelector('.verdict').dataset.verdict") == "balanced"


def test_a_command_that_nobody_answers_is_told(page: Browser) -> None:
    page.value("document.getElementById('token').value = 'any'")
    for pressed in ("getElementById('pause').click()", "getElementById('locked').requestSubmit()"):
        page.value(f"document.getElementById('command-result').textContent = ''; document.{pressed}")
        page.wait_for("document.getElementById('command-result').textContent.includes('does not answer')")


def test_charts_are_laid_out_anew_for_another_width_though_nothing_new_comes(page: Browser) -> None:
    try:
        for width_px, rows in ((390, "several"), (1440, "one")):
            page.call(
                "Emulation.setDeviceMetricsOverride", width=width_px, height=900, deviceScaleFactor=1, mobile=False
            )
            page.wait_for(f"innerWidth === {width_px} && {LEGEND_ROWS} === '{rows}'")
    finally:
        page.call("Emulation.clearDeviceMetricsOverride")


def test_the_page_of_a_run_that_has_ended_can_be_opened_again(page: Browser, run: RealRun) -> None:
    summary = json.loads((run.folder / "summary.json").read_text())
    command = [sys.executable, "-m", "ptychoflow", "view", str(run.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as viewing:
        try:
            url = viewing.stdout.readline().split()[0]
            page.open(url)
            page.wait_for(f"{STATE} === 'earlier run'")
            wait_until(lambda: page.value(TABLES) == tables_of(summary))
            page.wait_for(SHOWN)
            assert httpx.post(f"{url}api/commands/pause").status_code == 404
        finally:
            viewing.send_signal(signal.SIGINT)
            _, errors = viewing.communicate(timeout=30)
    assert (viewing.returncode, errors) == (0, "")


def test_the_token_is_in_no_file_of_the_run(run: RealRun) -> None:
    assert run.process.poll() is not None
    for path in run.folder.rglob("*"):
        assert not path.is_file() or run.token.encode() not in path.read_bytes(), path
