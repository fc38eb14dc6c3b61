"""A run whose network is good enough lets phase retrieval rest, and takes it up again when the specimen changes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import tomli_w
from support import wait_until

from ptychoflow.streaming.commands import CommandSender, Pause, Resume
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.benchmarks.drift import changing_scan, weights_that_know_the_first_specimen

SOURCE = changing_scan(seed=0)
FRAMES_EACH = SOURCE.frames_per_perspective
FIRST, SECOND = (specimen.perspectives for specimen in SOURCE.specimens)


def test_phase_retrieval_rests_until_the_specimen_changes(tmp_path: Path) -> None:
    """The first specimen's last perspective waits until the run monitors, so that a busy host tests the same."""
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights_that_know_the_first_specimen(SOURCE))
    settings = {
        "run": {"directory": str(tmp_path), "name": "drift"},
        "source": SOURCE.model_dump(mode="json", exclude_none=True),
        "acquisition": {
            "rate_hz": 100.0,
            "regime": {"ssim": 0.3, "consecutive": 2, "one_in": 5, "residual_ratio": 1.45},
        },
        "retrieval": {"epochs": 8, "target_shape_px": [16, 16]},
        "trainer": {
            "init_weights": str(weights),
            "model": {"width": 4},
            "pace": "stream",
            "finish_s": 0.0,
            "buffer": {"capacity": 200},
        },
        "edge": {
            "backend": "eager",
            "score_period_s": 0.5,
            "residual_share": 1.0,
        },  # every frame is scored, however busy the host is
        "dashboard": {"enabled": False},
    }
    configuration = tmp_path / "drift.toml"
    configuration.write_text(tomli_w.dumps(settings))
    folder = tmp_path / "drift"
    command = [sys.executable, "-m", "ptychoflow", "run", "--config", str(configuration)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: told(folder, type="perspective_started", perspective=FIRST - 1), timeout_s=120)
        network = tomllib.loads((folder / "config.toml").read_text())["network"]
        with closing(CommandSender(NetworkSettings(**network))) as sender:
            sender.send(Pause())
            wait_until(lambda: told(folder, type="regime_changed", regime="monitoring"), timeout_s=120)
            sender.send(Resume())
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    summary = json.loads((folder / "summary.json").read_text())
    regime, frames = summary["regime"], summary["frames"]
    monitoring = regime["changes"][0]
    assert monitoring["regime"] == "monitoring"
    assert 2 <= monitoring["perspective"] < FIRST
    # a false alarm before is possible, and costs phase retrieval of a perspective or two
    seen = {
        int(one["reason"].split(":")[0].removeprefix("perspective ")): one
        for one in regime["changes"]
        if one["regime"] == "learning"
    }
    assert FIRST in seen, "it is seen on the first perspective that changes, whether or not it has ground truth"
    learning = seen[FIRST]
    assert "residual" in learning["reason"]
    assert learning["acquired"] > FIRST * FRAMES_EACH
    assert learning["perspective"] not in regime["perspectives_skipped"]
    skipped = regime["perspectives_skipped"]
    assert len(skipped) >= 3
    assert regime["switches"] == len(regime["changes"])
    assert regime["ground_truth_seconds"] > 0
    mean_s = regime["ground_truth_seconds"] / (FIRST + SECOND - len(skipped))
    assert 0.2 * mean_s * len(skipped) < regime["ground_truth_seconds_saved"] < 5 * mean_s * len(skipped)
    assert frames["acquired"] == frames["inferred"] == FRAMES_EACH * (FIRST + SECOND)
    assert frames["lost"] == 0
    assert frames["unlabelled"] == summary["unlabelled_because"]["monitoring"] == FRAMES_EACH * len(skipped)
    report = (folder / "report.html").read_text()
    assert f"Monitoring from perspective {monitoring['perspective']} on" in report
    assert f"{FRAMES_EACH * len(skipped)} because the run was monitoring" in report


def told(folder: Path, **wanted: object) -> bool:
    """Whether an event with these figures is in the run's telemetry."""
    log = folder / "telemetry.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    events = (json.loads(line)["event"] for line in lines if line.endswith("\n"))
    return any(wanted.items() <= event.items() for event in events if event["type"] == wanted["type"])
