"""A small run whose parts live on several hosts, as the manual's `beamline.toml` has it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from ptychoflow.streaming.keys import make_keys
from ptychoflow.streaming.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
NAME = "beamtime-42"
PERSPECTIVES, FRAMES_EACH = 8, 40
FRAMES = PERSPECTIVES * FRAMES_EACH
CONFIGURATION: dict[str, Any] = {
    "run": {"name": NAME},
    "source": {
        "kind": "simulation",
        "perspectives": PERSPECTIVES,
        "frames_per_perspective": FRAMES_EACH,
        "frame_shape_px": [32, 32],
    },
    "acquisition": {"rate_hz": 8.0, "batch_frames": 4},
    "retrieval": {"source": "simulated", "target_shape_px": [16, 16]},
    "trainer": {
        "batch_size": 8,
        "threads": 1,
        "finish_s": 1.0,
        "publish_every_s": 1.0,
        "checkpoint": {"every_s": 2.0},
        "buffer": {"capacity": 200, "representatives": 8, "candidates": 7},
        "model": {"width": 4},
    },
    "edge": {"backend": "eager"},
    "dashboard": {"port": 8421},
    "network": {
        "keys_dir": "keys",
        "frames_port": 7001,
        "acknowledgements_port": 7002,
        "weights_port": 7003,
        "telemetry_port": 7004,
        "fanout_port": 7005,
        "commands_port": 7006,
        "commands_fanout_port": 7007,
        "samples_port": 7010,
    },
}

WRONG_CLOCK = """
import time
right, right_ns = time.time, time.time_ns
time.time = lambda: right() + {ahead_s}
time.time_ns = lambda: right_ns() + round({ahead_s} * 1e9)
"""


def prepare(folder: Path, changes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write `beamline.toml`, keys, and programs as an installation has them, into a folder that all hosts see."""
    changes = changes or {}
    sections = {name: section | dict(changes.get(name, {})) for name, section in CONFIGURATION.items()}
    (folder / "beamline.toml").write_text(tomli_w.dumps(sections))
    make_keys(folder / "keys")
    programs = folder / "programs"
    programs.mkdir()
    for name, module in (("python", ""), ("ptychoflow", "-m ptychoflow"), ("torchrun", "-m torch.distributed.run")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        program.chmod(0o755)


def environment(folder: Path, *, clock_ahead_s: float = 0.0) -> dict[str, str]:
    """Return the variables with which these programs are found, and their clock goes wrong."""
    paths = [str(ROOT / "src")]
    if clock_ahead_s:
        wrong_clock = folder / f"clock{clock_ahead_s:+.0f}"
        wrong_clock.mkdir(exist_ok=True)
        # Python imports this first of all; nothing of the program asks the system for the time of day otherwise
        (wrong_clock / "sitecustomize.py").write_text(WRONG_CLOCK.format(ahead_s=clock_ahead_s))
        paths.insert(0, str(wrong_clock))
    return {
        "PATH": f"{folder / 'programs'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def run_folder(folder: Path) -> RunFolder:
    """Return the folder of the run."""
    return RunFolder(folder / "runs" / NAME)


def counts(folder: Path) -> dict[str, int]:
    """Return what the acquisition and the edge have counted last, how often ranks went on, and final weights came."""
    last = {"acquired": 0, "inferred": 0, "resumed": 0, "final": 0}
    telemetry = run_folder(folder).telemetry
    for line in telemetry.read_text().splitlines(keepends=True) if telemetry.exists() else ():
        event = json.loads(line)["event"] if line.endswith("\n") else {"type": "not all of it is there"}
        match event["type"]:
            case "acquisition_counts":
                last["acquired"] = event["acquired"]
            case "edge_counts":
                last["inferred"] = event["inferred"]
            case "training_resumed":
                last["resumed"] += 1
            case "weights_published":
                last["final"] += event["final"]
    return last


def summary(folder: Path) -> dict[str, Any]:
    """Return the run's summary."""
    content: dict[str, Any] = json.loads(run_folder(folder).summary.read_text())
    return content


def assert_whole(folder: Path, *, frames: int = FRAMES) -> None:
    """Every frame is accounted for, imaged, and trained on once at most."""
    content = summary(folder)
    ledger = content["frames"]
    parts = ("trained", "validation", "void", "held_out", "excluded", "unlabelled", "rejected", "unplaced")
    assert content["ended_well"], (ledger, content["warnings"], content["failures"])
    assert (ledger["acquired"], ledger["lost"], ledger["inferred"]) == (frames, 0, frames), ledger
    assert sum(ledger[part] for part in parts) == frames, ledger
