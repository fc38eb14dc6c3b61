"""`ptychoflow run` on a folder of labelled images: real digits, task by task, all parts as real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from image_folders import DIGITS_PX, write_digits

SMALL = {
    "source.tasks": 2,
    "source.channels": 1,
    "source.stored_px": DIGITS_PX,
    "acquisition.rate_hz": 40.0,  # slow enough for the trainer to keep up beside other tests
    "trainer.image_px": DIGITS_PX,
    "trainer.least_crop_area": 1.0,
    "trainer.flip": False,
    "trainer.model.family": "small",
    "trainer.model.width": 8,
    "trainer.threads": 1,
    "trainer.finish_s": 2.0,
    "trainer.publish_every_s": 0.5,
    "trainer.buffer.capacity": 300,
    "trainer.buffer.representatives": 16,
    "dashboard.enabled": False,
}
TRAIN, VAL, CLASSES = 50, 25, 10


def run(folder: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    values = {**SMALL, "run.directory": str(directory)}
    assignments = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]
    command = [sys.executable, "-m", "ptychoflow", "run", str(folder), "--name", "digits", *assignments, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "digits", classes=CLASSES, train=TRAIN, val=VAL)


@pytest.fixture(scope="module")
def summary(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Digits learned by two ranks; one file cannot be read."""
    spoilt = next((digits / "train" / "3").iterdir())
    spoilt.write_bytes(b"no image")
    directory = tmp_path_factory.mktemp("runs")
    done = run(digits, directory, "--ranks=2")
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((directory / "digits" / "summary.json").read_text())
    assert any(str(spoilt) in warning["text"] for warning in found["warnings"])
    assert "classification" in (directory / "digits" / "report.html").read_text().lower()
    return found


def test_every_image_ends_in_exactly_one_place(summary: dict[str, Any]) -> None:
    frames = summary["frames"]
    assert frames["acquired"] == CLASSES * (TRAIN + VAL)
    assert frames["rejected"] == 1
    assert frames["published"] == frames["inferred"] == frames["acquired"] - 1
    assert (frames["trained"], frames["validation"]) == (CLASSES * TRAIN - 1, CLASSES * VAL)
    assert frames["lost"] == frames["unlabelled"] == frames["void"] == 0


def test_live_accuracy_is_told_by_task_and_beats_guessing(summary: dict[str, Any]) -> None:
    found = summary["classification"]
    assert found["chance"] == pytest.approx({"top1": 0.1, "top5": 0.5})
    names = [name for task in found["tasks"] for name in task["classes"]]
    assert sorted(names) == [str(label) for label in range(CLASSES)]
    for task in found["tasks"]:
        assert task["first_pass"]["validation_images"] == 5 * VAL
        assert 0.0 <= task["first_pass"]["top1"] <= task["first_pass"]["top5"] <= 1.0
    live = [task["first_pass"]["top1"] for task in found["tasks"]]
    assert found["first_pass"]["top1"] == pytest.approx(sum(live) / 2)
    # of a task's first images no network has seen the like: how many there are depends on how fast it learns here
    assert live[0] > 2 * found["chance"]["top1"]
    assert found["first_pass"]["top1"] > found["chance"]["top1"]
    assert sum(task["images"] for task in found["tasks"]) == summary["frames"]["inferred"]


def test_the_final_network_remembers_the_first_task(summary: dict[str, Any]) -> None:
    found = summary["classification"]
    assert [len(row) for row in found["accuracy_top1"]] == [1, 2]
    assert found["accuracy_top1"][-1][0] > 3 * found["chance"]["top1"]
    assert found["average_top1"] == pytest.approx(sum(found["accuracy_top1"][-1]) / 2)
    assert found["average_top1"] > 3 * found["chance"]["top1"]
    assert summary["validation_loss"][-1]["mean_over_seen"] < summary["validation_loss"][-1]["constant"]
    assert summary["weights"]["applied"] > 1


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere", tmp_path / "runs", "--pipeline=classification")
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if "INFO" not in one]
    assert "nowhere: there is no such file or folder; check the path" in line
    assert not (tmp_path / "runs").exists()
