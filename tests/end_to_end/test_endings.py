"""Runs that cannot get what they wait for end by themselves, and say why; a killed phase retrieval is done again."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import psutil
import pytest
from support import wait_until

from ptychoflow.streaming.events import AnyEvent, MosaicImage, MosaicKind
from ptychoflow.streaming.telemetry_log import TelemetryLog

PERSPECTIVES, FRAMES_EACH = 2, 40
FRAMES = PERSPECTIVES * FRAMES_EACH
SETTINGS = {
    "source.kind": "simulation",
    "source.perspectives": PERSPECTIVES,
    "source.frames_per_perspective": FRAMES_EACH,
    "source.frame_shape_px": [32, 32],
    "source.seed": 5,
    "acquisition.batch_frames": 8,
    "retrieval.epochs": 5,
    "retrieval.target_shape_px": [16, 16],
    "trainer.batch_size": 8,
    "trainer.pace": "stream",
    "trainer.finish_s": 0.5,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 100,
    "edge.backend": "eager",
    "dashboard.enabled": False,
}
WORKER = "ptychoflow.acquisition.retrieval.worker_process"
BOUND_S = 200.0
IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command whose controlling terminal is standard input."""


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command line of ours; nothing of it is left afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", "ptychoflow", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            everything = descendants(process)
            process.kill()
            for one in everything:
                one.kill()


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []


def begin(folder: Path, *arguments: str, **settings: Any) -> list[str]:
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    values = {**SETTINGS, "run.directory": str(folder.parent), **changes}
    assignments = [f"--set={key}={json.dumps(value)}" for key, value in values.items() if value is not None]
    return ["run", *arguments, "--name", folder.name, *assignments]


def ended(process: subprocess.Popen[str], folder: Path, *, status: int) -> tuple[dict[str, Any], str]:
    """Wait for the end; return the summary and what was printed last."""
    _, errors = process.communicate(timeout=BOUND_S)
    assert process.returncode == status, errors[-3000:]
    assert "Traceback" not in errors
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["ended_well"] is (status == 0)
    assert summary["frames"]["lost"] == 0
    return summary, errors.strip().splitlines()[-1]


def warnings(summary: dict[str, Any], part: str) -> list[str]:
    return [warning["text"] for warning in summary["warnings"] if warning["part"] == part]


def workers(process: subprocess.Popen[str]) -> set[int]:
    """Return the process ids of phase retrieval that goes on."""
    return {one.pid for one in descendants(process) if WORKER in command_line(one)}


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended since it was listed
        return []


def kill_worker(process: subprocess.Popen[str], folder: Path, *, times: int) -> None:
    """Kill phase retrieval at its first perspective, and then what does it again."""
    jobs = folder / "spool" / "ground_truth"
    killed: set[int] = set()
    wait_until(lambda: any(jobs.glob("*/0/positions_px.npy")) and bool(workers(process)), timeout_s=90)
    for _ in range(times):
        wait_until(lambda: bool(workers(process) - killed), timeout_s=90)
        (pid,) = workers(process) - killed
        psutil.Process(pid).kill()
        killed.add(pid)


def reference_frames(folder: Path) -> dict[str, str]:
    outcomes = folder / "spool" / "outcomes"
    return {path.parent.name: json.loads(path.read_text())["type"] for path in outcomes.glob("*/outcome.json")}


def test_a_scan_that_shows_nothing_but_void_ends_by_itself_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "void"
    with started(*begin(folder, retrieval__source="simulated", retrieval__void_threshold=100.0)) as process:
        summary, said = ended(process, folder, status=1)
    assert summary["frames"]["void"] == summary["frames"]["acquired"] == FRAMES
    assert summary["frames"]["trained"] == 0
    early, why = warnings(summary, "acquisition")
    assert "void" in early
    assert why.startswith("none of the 80 frames can be learnt from: 80 show nothing but void; ")
    assert "retrieval.void_threshold = 100 rad²" in why
    (failure,) = {one["text"] for one in summary["failures"]}
    assert failure.startswith("no sample arrived: ")
    assert said.startswith("ptychoflow: trainer failed (exit status 2): no sample arrived: ")
    report = (folder / "report.html").read_text()
    assert "80 show nothing but void" in report
    assert "no sample arrived" in report


def test_initial_weights_image_a_scan_that_nothing_can_be_learnt_from_and_the_run_has_not_ended_well(
    killed_twice: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    learnt, folder = killed_twice[0], tmp_path / "imaged"
    void = {"retrieval__source": "simulated", "retrieval__void_threshold": 100.0}
    with started(*begin(folder, "--init-weights", str(learnt), **void)) as process:
        summary, said = ended(process, folder, status=1)
    frames = summary["frames"]
    assert (frames["acquired"], frames["inferred"], frames["void"]) == (FRAMES, FRAMES, FRAMES)
    assert said == (
        "ptychoflow: none of the 80 frames could be learnt from: 80 void, 0 refused, "
        "0 without ground truth because phase retrieval failed"
    )
    for index in range(PERSPECTIVES):
        assert (folder / "images" / f"perspective_{index:04d}.h5").stat().st_size > 0
    assert list((folder / "images").glob("*.png"))


def test_phase_retrieval_that_is_killed_once_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "once"
    with started(*begin(folder)) as process:
        kill_worker(process, folder, times=1)
        summary, _ = ended(process, folder, status=0)
    frames = summary["frames"]
    assert (frames["acquired"], frames["unlabelled"]) == (FRAMES, 0)
    assert frames["trained"] + frames["validation"] + frames["void"] == FRAMES
    assert {one["index"]: one["ground_truth"] for one in summary["perspectives"]} == {0: "ptychi", 1: "ptychi"}
    assert any("perspective 0 is tried once more" in text for text in warnings(summary, "acquisition"))


@pytest.fixture(scope="module")
def killed_twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A run whose first perspective no worker survived: its folder, its summary, and its last line."""
    folder = tmp_path_factory.mktemp("runs") / "twice"
    with started(*begin(folder)) as process:
        kill_worker(process, folder, times=2)
        return folder, *ended(process, folder, status=1)


def test_phase_retrieval_that_is_killed_twice_leaves_its_perspective_unlabelled_and_the_run_goes_on(
    killed_twice: tuple[Path, dict[str, Any], str],
) -> None:
    folder, summary, said = killed_twice
    frames = summary["frames"]
    assert (frames["acquired"], frames["inferred"], frames["unlabelled"]) == (FRAMES, FRAMES, FRAMES_EACH)
    assert summary["unlabelled_because"] == {"worker_lost": FRAMES_EACH}
    assert frames["trained"] > 0
    assert any(
        text.startswith("no ground truth for perspective 0: the ground-truth worker is gone, 2 times")
        for text in warnings(summary, "acquisition")
    )
    assert said.startswith("ptychoflow: 40 frames are without ground truth, because phase retrieval was killed")
    assert summary["failures"] == []
    assert "phase retrieval was killed" in (folder / "report.html").read_text()


def test_a_resumed_run_asks_again_for_what_was_killed(killed_twice: tuple[Path, dict[str, Any], str]) -> None:
    folder, before, _ = killed_twice
    assert reference_frames(folder) == {"0001": "done"}
    with started("resume", str(folder)) as process:
        summary, _ = ended(process, folder, status=0)
    frames = summary["frames"]
    assert (frames["acquired"], frames["unlabelled"], frames["rejected"]) == (FRAMES, 0, 0)
    assert frames["trained"] + frames["validation"] + frames["void"] == FRAMES
    assert frames["trained"] > before["frames"]["trained"]


def events(folder: Path) -> list[AnyEvent]:
    log = folder / "telemetry.jsonl"
    return [one.event for one in TelemetryLog(log)] if log.exists() else []


def first_passes_shown(folder: Path) -> set[int]:
    """Return the perspectives of which an image was made so far."""
    return {
        one.perspective for one in events(folder) if isinstance(one, MosaicImage) and one.kind is MosaicKind.FIRST_PASS
    }


def test_ctrl_c_leaves_the_images_made_so_far(tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    slow = {"acquisition__rate_hz": 8.0, "source__perspectives": 12, "retrieval__source": "simulated"}
    with started(*begin(folder, **slow)) as process:
        wait_until(lambda: len(first_passes_shown(folder)) >= 2, timeout_s=120)
        shown = first_passes_shown(folder)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert json.loads((folder / "summary.json").read_text())["interrupted"]
    for perspective in shown:
        stem = f"perspective_{perspective:04d}"
        with h5py.File(folder / "images" / f"{stem}.h5") as file:
            assert file["first_pass/coverage"][()].max() > 0
            assert file["first_pass/phase"].shape == file["first_pass/coverage"].shape
        pictures = {path.name for path in (folder / "images").glob(f"{stem}*.png")}
        assert any("first_pass" in name for name in pictures), pictures


def test_a_closed_terminal_ends_a_run_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "hung_up"
    slow = {"acquisition__rate_hz": 8.0, "source__perspectives": 12, "retrieval__source": "simulated"}
    terminal, ours = pty.openpty()
    shown = threading.Event()

    def read() -> None:
        while not shown.is_set():
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 65536)

    with ThreadPoolExecutor(1) as reader:
        watched = reader.submit(read)
        process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, sys.executable, "-m", "ptychoflow", *begin(folder, **slow)],
            stdin=ours,
            stdout=ours,
            stderr=ours,
            start_new_session=True,
        )
        os.close(ours)
        try:
            wait_until(lambda: len(events(folder)) > 20, timeout_s=120)
        finally:
            shown.set()
            watched.result()
            os.close(terminal)
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()
    assert "Traceback" not in (folder / "logs" / "launcher.log").read_text()
    assert json.loads((folder / "summary.json").read_text())["interrupted"]
    assert (folder / "report.html").exists()
