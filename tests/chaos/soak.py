"""A long run of many small frames: how large is every process, telemetry and spool at its start, middle and end?

    PYTHONPATH=src:tests python tests/chaos/soak.py --frames 10000000 --rate-hz 2500 --work soak

It ends when all frames are through, or in order after `--hours`; broken off, it goes on where it was. What was measured
is in `samples.jsonl` beside the run, one line a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from run import Run
from victims import processes_of, victims

FRAMES_EACH = 4_000
SETTINGS: dict[str, Any] = {
    "source.frames_per_perspective": FRAMES_EACH,
    "source.frame_shape_px": [16, 16],
    "acquisition.batch_frames": 64,
    # one perspective in eight is learnt from: a rank on one core learns more slowly than an edge images
    "acquisition.regime.learning_one_in": 8,
    "dashboard.port": 0,
    "acquisition.spool_memory_bytes": 64 << 20,
    "retrieval.target_shape_px": [8, 8],
    "trainer.batch_size": 64,
    "trainer.threads": 1,
    "trainer.publish_every_s": 10.0,
    "trainer.model.width": 2,
    "trainer.model.levels": 2,
    "trainer.buffer.capacity": 2_000,
    "trainer.checkpoint.every_s": 60.0,
}
SETTLED_SHARE = 0.1
"""Of the run: until then memory fills up to its bounds."""
TAIL_BYTES = 1 << 16
MIB = 1 << 20
STOP_PATIENCE_S = 120.0


def measure(run: Run) -> dict[str, float]:
    """Return MiB of memory that each process has written to, and of telemetry and spool, and the frames so far."""
    found: Counter[str] = Counter()
    for role, process in victims(run.mark):
        try:
            found[role.value] += _written_bytes(process) / MIB
        except (psutil.Error, OSError):
            continue
    for name, path in (("telemetry", run.folder / "telemetry.jsonl"), ("spool", run.folder / "spool")):
        found[f"{name} on disk"] = _bytes_of(path) / MIB
    found["frames"] = _acquired(run.folder / "telemetry.jsonl")
    return {name: round(value, 1) for name, value in found.items()}


def table(samples: list[dict[str, float]]) -> str:
    """Return what was measured at the start, once memory is filled, in the middle and at the end, and the most."""
    names = sorted({name for sample in samples for name in sample} - {"time_s", "frames"})
    hours = (samples[-1]["time_s"] - samples[0]["time_s"]) / 3600
    rows = [f"{hours:.2f} h, {samples[-1]['frames']:.0f} frames; MiB", _row("", ["start", "middle", "end", "most"])]
    for name in names:
        # parts end one after the other
        values = [sample[name] for sample in samples if name in sample]
        chosen = [values[int(share * (len(values) - 1))] for share in (SETTLED_SHARE, 0.5, 1.0)]
        rows.append(_row(name, [f"{value:.1f}" for value in (*chosen, max(values))]))
    return "\n".join(rows)


def _row(name: str, columns: list[str]) -> str:
    return f"{name:<20}" + "".join(f"{column:>10}" for column in columns)


def _written_bytes(process: psutil.Process) -> int:
    """Return the memory that a process has written to: pages of libraries are its own only while nobody else's."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Dirty:", "Swap:"))) << 10


def _bytes_of(path: Path) -> int:
    """Return the size of a file or of all in a folder, in which files come and go."""
    files = [path] if path.is_file() else [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def _acquired(telemetry: Path) -> int:
    if not telemetry.exists():
        return 0
    with telemetry.open("rb") as file:
        file.seek(max(0, telemetry.stat().st_size - TAIL_BYTES))
        lines = file.read().splitlines()
    counts = (line for line in reversed(lines) if b'"acquisition_counts"' in line and line.endswith(b"}"))
    newest = next(counts, None)
    return 0 if newest is None else int(json.loads(newest)["event"]["acquired"])


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--rate-hz", type=float, default=2_500.0)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds between measurements")
    parser.add_argument("--work", type=Path, required=True, help="folder of the run and of what is measured")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    file = work / "samples.jsonl"
    samples = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    perspectives = max(1, options.frames // FRAMES_EACH)
    run = Run(work / "soak", {**SETTINGS, "source.perspectives": perspectives, "acquisition.rate_hz": options.rate_hz})
    run.start()
    deadline_s = time.monotonic() + 3600 * options.hours
    try:
        while run.status is None:
            time.sleep(options.every_s)
            if run.status is not None:
                break
            samples.append({"time_s": time.time(), **measure(run)})
            with file.open("a") as written:
                written.write(json.dumps(samples[-1]) + "\n")
            print(json.dumps(samples[-1]), flush=True)
            if time.monotonic() > deadline_s:
                run.launcher.send_signal(signal.SIGINT)
                run.wait_until_gone(STOP_PATIENCE_S)
                break
    finally:
        left = processes_of(run.mark)
        run.kill()
    print(table(samples) if samples else "nothing was measured")
    if left:
        print(f"{len(left)} processes had to be killed")
    print(run.said[-1000:])
    return 0 if run.status in (0, 130) and not left else 1


if __name__ == "__main__":
    sys.exit(main())
