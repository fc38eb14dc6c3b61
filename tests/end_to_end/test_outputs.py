"""A run with outputs switched on: what its consumers get is what the run itself keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import psutil
import zmq
from support import free_ports, wait_until
from test_run import QUICK, command

from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.workflow.configuration.config import load_scan_config


@contextmanager
def subscribed(port: int) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.linger = 0
        subscriber.connect(f"tcp://127.0.0.1:{port}")
        subscriber.subscribe(b"")
        yield subscriber


def documents(subscriber: zmq.Socket[bytes]) -> list[tuple[str, dict[str, Any]]]:
    """Return what came until the bluesky run ended."""
    came = []
    while not came or came[-1][0] != "stop":
        assert subscriber.poll(20_000)
        _, kind, document = subscriber.recv().split(b" ", 2)
        came.append((kind.decode(), msgspec.msgpack.decode(document)))
    return came


def test_scores_and_whole_perspectives_go_out_as_the_run_keeps_them(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = {"outputs.bluesky.port": port, "outputs.ptychodus.folder": str(tmp_path / "handed")}
    with subscribed(port) as subscriber:
        done = subprocess.run(
            command(tmp_path, "first", **settings, **QUICK), capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        came = documents(subscriber)
    folder = tmp_path / "first"
    summary = json.loads((folder / "summary.json").read_text())
    assert [one for one in summary["warnings"] if one["part"] == "outputs"] == []
    streams = {document["uid"]: document["name"] for kind, document in came if kind == "descriptor"}
    newest = {
        (streams[document["descriptor"]], document["data"]["perspective"]): document["data"]
        for kind, document in came
        if kind == "event"
    }
    assert came[0][1]["ptychoflow"]["run"] == "first"
    for row in summary["perspectives"]:
        for kind in ("first_pass", "refreshed"):
            data = newest[kind, row["index"]]
            assert data["psnr_phase_db"] == row[kind]["psnr_db"]["phase"]
            assert data["ssim_amplitude"] == row[kind]["ssim"]["amplitude"]
    assert newest["held_out", 2]["psnr_phase_db"] == summary["held_out"]["psnr_db"]["phase"]
    config = load_scan_config(file=folder / "config.toml")
    for original in open_scan(config.source):
        product = tmp_path / "handed" / "first" / f"perspective_{original.index:04d}" / "product.h5"
        with closing(open_scan(ReplaySettings(path=product))) as scan:
            again = scan.perspective(0)
            np.testing.assert_array_equal(again.read(0, 100), original.read(0, 100))
            assert again.geometry.energy_eV == original.geometry.energy_eV
        with (
            h5py.File(product) as file,
            h5py.File(folder / "images" / f"perspective_{original.index:04d}.h5") as images,
        ):
            reference = images["reference"]
            covered = np.nan_to_num(reference["amplitude"][()] * np.exp(1j * reference["phase"][()]))
            np.testing.assert_allclose(file["object"][0], covered, atol=1e-6)
    assert_handed_over_again_alike(folder, tmp_path)


def assert_handed_over_again_alike(run: Path, folder: Path) -> None:
    again = [sys.executable, "-m", "ptychoflow", "hand-over", str(run), str(folder / "again")]
    said = subprocess.run(again, capture_output=True, text=True, timeout=100, check=True).stdout
    assert said.splitlines() == [str(folder / "again" / "first" / f"perspective_{index:04d}") for index in range(3)]
    for first in (folder / "handed").rglob("*.h5"):
        second = folder / "again" / first.relative_to(folder / "handed")
        with h5py.File(first) as one, h5py.File(second) as other:
            assert dict(one.attrs) == dict(other.attrs)
            assert set(one) == set(other)
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
    assert not (run / "spool").exists()


def test_a_run_goes_on_without_its_outputs_but_has_then_not_ended_well(tmp_path: Path) -> None:
    settings = {"outputs.ptychodus.folder": str(tmp_path / "handed")}
    started = subprocess.Popen(
        command(tmp_path, "second", retrieval__source="simulated", **settings, **QUICK),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = tmp_path / "second" / "logs" / "outputs.log"
    wait_until(lambda: log.exists() and "starts, process" in log.read_text(), timeout_s=60)
    (outputs,) = (child for child in psutil.Process(started.pid).children() if "outputs" in child.cmdline())
    os.kill(outputs.pid, signal.SIGKILL)
    _, said = started.communicate(timeout=200)
    assert started.returncode == 1
    assert "outputs failed (ended by signal SIGKILL)" in said.splitlines()[-1]
    summary = json.loads((tmp_path / "second" / "summary.json").read_text())
    assert (summary["frames"]["acquired"], summary["frames"]["lost"]) == (300, 0)
