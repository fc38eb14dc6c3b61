"""A night at a detector: series after series with pauses, aborts, and a restart of each part; ends with a table.

`python tests/end_to_end/night.py --series 200 --frames 100 --seed 1`. Detector and PandA are processes that run by the
clock. Each part of the run, the detector and the PandA are killed, one after the other, in the middle of a series, and
started again: what a run does not see to by itself, `ptychoflow resume` does. At the end the ledger must balance with
what lies in the arrivals, every recorded frame must be one that was sent, at its place, and a page that was open all
night must have been usable.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "dashboard"), str(Path(__file__).parent)]

from beamline import JOINED, Plan, PlannedSeries, ready_file  # noqa: E402
from browser import NAMES, Browser  # noqa: E402
from support import free_ports, wait_until  # noqa: E402

from ptychoflow.acquisition.detectors.arrivals import FrameCame  # noqa: E402
from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader, arrivals_files  # noqa: E402
from ptychoflow.acquisition.detectors.sources import make_decoder  # noqa: E402
from ptychoflow.acquisition.simulate import simulate_to_file  # noqa: E402
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings  # noqa: E402
from ptychoflow.acquisition.sources import open_scan  # noqa: E402
from ptychoflow.streaming.durable_file import write_durably  # noqa: E402
from ptychoflow.workflow.configuration.config import Config, load_config  # noqa: E402

SETTINGS: dict[str, Any] = {
    **JOINED,
    "source.first_frames": 32,
    "source.idle_s": 20.0,
    "acquisition.record": True,
    "retrieval.source": "ptychi",
    "retrieval.epochs": 3,
    # so few epochs show little of the object
    "retrieval.void_threshold": 0.0,
    "retrieval.target_shape_px": [16, 16],
    "trainer.batch_size": 8,
    "trainer.finish_s": 1.0,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 300,
    "trainer.checkpoint.every_s": 5.0,
    "edge.backend": "eager",
    "dashboard.port": 0,
}
RATE_HZ = 60.0
PERSPECTIVES = 4
BEGIN_AFTER_S = 1.0
SAMPLED_EVERY_S = 5.0
KILLED_AT = {
    "acquisition": 0.2,
    "detector": 0.3,
    "positions": 0.4,
    "phase retrieval": 0.5,
    "page": 0.6,
    "edge": 0.65,
    "trainer": 0.8,
    "receiver": 0.9,
}
"""Share of the series."""
PARTS = tuple(KILLED_AT)
ENDING = {"acquisition", "edge"}
"""Without these a run does not go on by itself. It goes on without its page, which a resumed one has again."""
LOOKED_AT = (0.1, 0.35, 0.55, 0.78, 0.97)
PATIENCE_S = 120.0
HEARD_EVERY_S = 0.5
COUNTED = "Number(document.getElementById('frames-short').textContent.split(',')[0].replace(/[^0-9]/g, ''))"
"""Frames on the page."""
WORDS = {
    "receiver": "receiver_process",
    "phase retrieval": "worker_process",
    "acquisition": "acquire",
    "edge": "edge",
    "trainer": "train",
    "page": "dashboard",
    "detector": "dectris-v2:",
    "positions": "panda:",
}
"""What the command line of each process holds, the first that fits."""


@dataclass
class Night:
    """What is done, and what was seen of it."""

    folder: Path
    series: int
    frames: int
    seed: int
    killed: tuple[str, ...]
    end_after_idle_s: float
    pauses_s: tuple[float, float] = (0.3, 1.5)
    looked_at: tuple[float, ...] = LOOKED_AT
    """When the page is looked at, as shares of the series; one browser shows it all night."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Beside `SETTINGS`."""
    memory_MiB: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """With the time of each sample."""
    pages: list[str] = field(default_factory=list)
    complaints: Counter[str] = field(default_factory=Counter)
    """Of the browser."""
    restarts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.scan, self.plan_file, self.run = self.folder / "scan.h5", self.folder / "plan.json", self.folder / "run"
        detector, panda = free_ports(2)
        self.addresses = {"detector": f"dectris-v2://127.0.0.1:{detector}", "positions": f"panda://127.0.0.1:{panda}"}
        self._beamline: dict[str, subprocess.Popen[bytes]] = {}

    def pass_it(self) -> dict[str, Any]:
        """Take the whole night; return the run's summary."""
        simulate_to_file(
            SimulationSettings(perspectives=PERSPECTIVES, frames_per_perspective=self.frames, frame_shape_px=(32, 32)),
            self.scan,
        )
        with ExitStack() as stack:
            self._log = stack.enter_context((self.folder / "night.log").open("wb"))
            self._stack = stack
            for which in self.addresses:
                self._start_beamline(which)
            run = self._start_run()
            wait_until(lambda: any(arrivals_files(self.run / "arrivals")), timeout_s=300)
            ready = [ready_file(self.plan_file, source) for source in self.addresses.values()]
            wait_until(lambda: all(file.exists() for file in ready), timeout_s=300)
            plan = self._make_plan(time.time() + BEGIN_AFTER_S)
            self._watch(plan, run)
        return json.loads((self.run / "summary.json").read_text())

    def _start_run(self) -> subprocess.Popen[bytes]:
        values = {**SETTINGS, **self.settings, "run.directory": str(self.folder)}
        values["source.end_after_idle_s"] = self.end_after_idle_s
        values["dashboard.enabled"] = bool(self.looked_at)
        values["source.geometry.detector_distance_m"] = SimulationSettings().detector_distance_m
        options = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]
        sources = ["--detector", self.addresses["detector"], "--positions", self.addresses["positions"]]
        return self._start("-m", "ptychoflow", "run", "--name", self.run.name, *sources, *options)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, *arguments], stdout=self._log, stderr=self._log)
        self._stack.callback(_end, process)
        return process

    def _start_beamline(self, which: str) -> None:
        program = Path(__file__).with_name("beamline.py")
        self._beamline[which] = self._start(str(program), self.addresses[which], str(self.scan), str(self.plan_file))

    def _make_plan(self, begin_s: float) -> Plan:
        aborted = set(self._random.sample(range(2, self.series - 1), 2))
        planned = []
        for number in range(self.series):
            planned.append(PlannedSeries(begin_s, number % PERSPECTIVES, number in aborted))
            begin_s += self.frames / RATE_HZ + self._random.uniform(*self.pauses_s)
        plan = Plan(planned, RATE_HZ)
        write_durably(self.plan_file, msgspec.json.encode(plan))
        return plan

    def _watch(self, plan: Plan, run: subprocess.Popen[bytes]) -> None:
        """Kill what is to be killed, start again what does not by itself, and look at memory and page meanwhile."""
        middle_s = 0.5 * self.frames / RATE_HZ
        kills = [(plan.series[int(KILLED_AT[part] * self.series)].begin_s + middle_s, part) for part in self.killed]
        if looks := [plan.series[int(share * self.series)].begin_s for share in self.looked_at]:
            viewer = threading.Thread(target=self._view_page, args=(looks,))
            viewer.start()
            self._stack.callback(viewer.join)
        sample_due_s = 0.0
        while True:
            if (status := run.poll()) == 0:
                return
            if status is not None:
                resumed = sum("resumed" in one for one in self.restarts)
                assert resumed < len(ENDING & set(self.killed)), f"the run ended with status {status}: see night.log"
                self.restarts.append(f"the run ended with status {status} and is resumed")
                run = self._start("-m", "ptychoflow", "resume", str(self.run))
            now_s = time.time()
            if kills and now_s >= kills[0][0]:
                self._kill(kills.pop(0)[1], run)
            if now_s >= sample_due_s:
                sample_due_s = now_s + SAMPLED_EVERY_S
                self.memory_MiB.append((now_s - plan.series[0].begin_s, self._memory(run)))
            time.sleep(0.1)

    def _kill(self, part: str, run: subprocess.Popen[bytes]) -> None:
        self.restarts.append(f"{part} killed")
        if part in self._beamline:
            self._beamline[part].kill()
            self._beamline[part].wait()
            self._start_beamline(part)
            return
        killed = [one for one in psutil.Process(run.pid).children(recursive=True) if _kind(one) == part]
        assert killed, f"there is no {part}"
        for process in killed:
            process.kill()

    def _memory(self, run: subprocess.Popen[bytes]) -> dict[str, float]:
        """The memory that each process has for itself, in MiB, without what is mapped of files."""
        found = {"launcher": _own_MiB(psutil.Process(run.pid))} if run.poll() is None else {}
        for process in [one for one in psutil.Process().children(recursive=True) if one.pid != run.pid]:
            if (kind := _kind(process)) is not None:
                found[kind] = found.get(kind, 0.0) + _own_MiB(process)
        return found

    def _view_page(self, looks: list[float]) -> None:
        """Keep the page open all night, and note how it is now and then; its pictures lie in the folder."""
        if not any(map(shutil.which, NAMES)):
            self.pages.append("not looked at: there is no Chromium on this host")
            return
        port = tomllib.loads((self.run / "config.toml").read_text())["dashboard"]["port"]
        counted = 0
        with Browser() as browser:
            browser.size(1400, 1000)
            browser.open(f"http://127.0.0.1:{port}")
            for number, at_s in enumerate(looks):
                while time.time() < at_s:
                    browser.value("1")  # so that what it says is heard
                    time.sleep(HEARD_EVERY_S)
                began_s = time.monotonic()
                browser.wait_for(f"document.getElementById('run').textContent === '{self.run.name}'", PATIENCE_S)
                browser.wait_for(f"{COUNTED} > {counted}", PATIENCE_S)
                browser.wait_for("document.querySelectorAll('figure canvas').length > 0", PATIENCE_S)
                counted = browser.value(COUNTED)
                said = browser.value("document.getElementById('frames-short').textContent")
                heap_mib = browser.value("performance.memory.usedJSHeapSize") / 2**20
                kept = browser.value("document.querySelectorAll('*').length")
                (self.folder / f"page_{number}.png").write_bytes(browser.picture())
                seconds = time.monotonic() - began_s
                self.pages.append(f"{said}: {seconds:.1f} s, {heap_mib:.0f} MiB, {kept} elements")
            self.complaints = Counter(browser.complaints)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        for one in psutil.wait_procs([process, *children], timeout=30)[1]:
            one.kill()


def _kind(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline()[1:])
    except psutil.Error:
        return None
    return next((kind for kind, word in WORDS.items() if word in line), None)


def _own_MiB(process: psutil.Process) -> float:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    anonymous = next((line for line in status.splitlines() if line.startswith("RssAnon")), "RssAnon: 0 kB")
    return int(anonymous.split()[1]) / 1024


def arrived(run: Path) -> int:
    """Count the frames in the arrivals of a run."""
    config = load_config(file=run / "config.toml")
    assert isinstance(config, Config)
    decoders = [make_decoder(one) for one in config.source.sources]
    messages = (one for one in ArrivalsReader(run / "arrivals").read() if one.source < len(decoders))
    return sum(
        isinstance(one, FrameCame) for message in messages for one in decoders[message.source].decode(message.parts)
    )


def require_exact(recording: Path, sent: Path) -> int:
    """Fail unless every recorded frame is one that was sent and lies where it was sent; return how many there are."""
    scan = open_scan(ReplaySettings(path=sent))
    dtype, places = scan.perspective(0).read(0, 1).dtype, {}
    for perspective in scan:
        counts = perspective.read(0, len(perspective))
        places |= {frame.tobytes(): place for frame, place in zip(counts, perspective.positions_px, strict=True)}
    found = 0
    for kept in open_scan(ReplaySettings(path=recording)):
        came = [places[frame.tobytes()] for frame in kept.read(0, len(kept)).astype(dtype)]
        np.testing.assert_allclose(kept.positions_px, came, atol=1e-6)
        found += len(came)
    return found


def require_balance(summary: dict[str, Any], night: Night) -> None:
    """Fail unless every frame that arrived has one end."""
    frames = summary["frames"]
    unplaced = sum(summary["unplaced_because"].values())
    assert summary["ended_well"], summary["failures"]
    assert frames["acquired"] == arrived(night.run)
    assert len(night.pages) == len(night.looked_at), "the page was not usable: see night.log"
    assert (frames["lost"], frames["rejected"]) == (0, 0)
    assert frames["acquired"] == frames["inferred"] + unplaced
    assert require_exact(night.run / "recording.h5", night.scan) == frames["inferred"]


def table(night: Night, summary: dict[str, Any]) -> str:
    """Return what a person reads in the morning."""
    sent = night.series * night.frames
    lines = [
        f"{night.series} series of {night.frames} frames planned ({sent}, two of them broken off), seed {night.seed}",
        f"seconds: {summary['seconds']:.0f}; perspectives: {len(summary['perspectives'])} in the summary, "
        f"{summary['forgotten']['perspectives']} forgotten",
        f"frames: {summary['frames']}",
        f"unplaced: {summary['unplaced_because']}; missing: {summary['missing_because']}; "
        f"unlabelled: {summary['unlabelled_because']}",
        "restarts: " + "; ".join(night.restarts),
        *(f"page: {one}" for one in night.pages),
        *(f"the browser complains {times} times: {text[:300]}" for text, times in night.complaints.items()),
        f"warnings: {sum(one['count'] for one in summary['warnings'])} of {len(summary['warnings'])} kinds",
        f"{'memory, MiB':<18}{'start':>8}{'middle':>8}{'end':>8}{'most':>8}",
    ]
    samples = [memory for at_s, memory in night.memory_MiB if at_s > 0]
    for kind in ["launcher", *WORDS]:
        figures = [memory[kind] for memory in samples if kind in memory]
        if figures:
            picked = [
                figures[len(figures) // 10],
                figures[len(figures) // 2],
                figures[-len(figures) // 10],
                max(figures),
            ]
            lines.append(f"{kind:<18}" + "".join(f"{figure:8.0f}" for figure in picked))
    return "\n".join(lines)


def main() -> None:
    """Pass a night and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where everything is kept; a temporary one by default")
    parser.add_argument("--killed", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--end-after-idle-s", type=float, default=30.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        night = Night(folder, chosen.series, chosen.frames, chosen.seed, tuple(chosen.killed), chosen.end_after_idle_s)
        summary = night.pass_it()
        print(table(night, summary), flush=True)  # noqa: T201
        require_balance(summary, night)
        print("the ledger balances, and every frame lies where it was sent", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
