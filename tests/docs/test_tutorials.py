"""Commands and programs on the tutorial pages run as they stand, page by page, in one folder; so do some how-to pages.

Only two things differ from what a reader does: commands get the option that the page itself names for those in a hurry
(`run with: …` above a block), and fixed ports are replaced by free ones.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from pages import DOCS, ROOT, Block, blocks
from support import free_block, free_ports

from ptychoflow.acquisition.readers.reader import ScanFiles

PATIENCE_S = 180.0
FIXED_PORT = re.compile(r"\b(70\d\d|8421|31001|8889)\b")
RECORDED = "ptychoflow inspect runs/attached/recording.h5 --plot attached.png"

pytestmark = pytest.mark.timeout(400)


class Reader:
    """Does what a page says, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder.parent / "programs"
        programs.mkdir()
        for name, module in (("ptychoflow", "ptychoflow"), ("torchrun", "torch.distributed.run"), ("python", None)):
            program = programs / name
            call = f'"{sys.executable}"' + (f" -m {module}" if module else "")
            program.write_text(f'#!/bin/sh\nexec {call} "$@"\n')
            program.chmod(0o755)
        first = free_block(11)
        self._ports = {str(7000 + number): str(first + number) for number in range(11)}
        self._ports |= dict(zip(("8421", "31001", "8889"), map(str, free_ports(3)), strict=True))
        self._environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def run_programs(self, page: str) -> str:
        """Write the files of a how-to page and run its Python; return what that printed."""
        printed = ""
        for block in blocks(DOCS / "how-to" / f"{page}.md"):
            if block.file is not None:
                self._write(block)
            elif block.language == "python":
                printed += self._run(block)
        return printed

    def follow(self, page: str) -> dict[str, str]:
        """Write and run the blocks of a tutorial in their order; return what each printed, by its first line."""
        printed: dict[str, str] = {}
        with ExitStack() as stack:
            background: dict[str, subprocess.Popen[str]] = {}
            for block in blocks(DOCS / "tutorials" / f"{page}.md"):
                if block.file is not None:
                    self._write(block)
                elif block.runs and block.marker.startswith(("run in the background", "run until interrupted")):
                    name = block.marker.partition(": ")[2]
                    started = stack.enter_context(self._started(block))
                    if name:
                        background[name] = started
                    else:
                        interrupt(started)
                elif block.runs:
                    printed[block.text.splitlines()[0]] = self._run(block)
            for name in [name for name in background if name != "dashboard"]:
                assert background[name].wait(PATIENCE_S) == 0, name
            if "dashboard" in background:
                interrupt(background["dashboard"])
        return printed

    def _write(self, block: Block) -> None:
        assert block.file is not None
        (self.folder / block.file).write_text(self._with_free_ports(block.text))

    def _with_free_ports(self, text: str) -> str:
        return FIXED_PORT.sub(lambda port: self._ports.get(port[0], port[0]), text)

    def _call(self, block: Block) -> list[str]:
        if block.language == "python":
            return ["python", "-c", block.text]
        lines = self._with_free_ports(block.text).strip().splitlines()
        commands = [f"{line} {block.options}".rstrip() for line in lines]
        return ["sh", "-euc", "\n".join(commands)]

    def _run(self, block: Block) -> str:
        ended = subprocess.run(
            self._call(block), cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        expected = int(block.marker.partition("refused with status ")[2] or 0)
        assert ended.returncode == expected, f"{block.text}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
        return ended.stdout

    @contextmanager
    def _started(self, block: Block) -> Iterator[subprocess.Popen[str]]:
        (command,) = self._with_free_ports(block.text).strip().splitlines()
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd=self.folder, env=self._environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C once the process serves its page, and see it end well."""
    assert process.stdout is not None
    for line in process.stdout:
        if "http://" in line:
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in {0, 130}, output


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    folder = tmp_path_factory.mktemp("reader") / "work"
    folder.mkdir()
    return Reader(folder)


@pytest.fixture(scope="module")
def first_run(reader) -> dict[str, str]:
    """What the first tutorial printed; the others need its scan."""
    return reader.follow("first-run")


def test_a_first_run(reader, first_run):
    summary = json.loads((reader.folder / "runs" / "first" / "summary.json").read_text())
    assert summary["ended_well"]
    assert summary["frames"]["inferred"] == 200
    assert (reader.folder / "scan.png").is_file()
    assert (reader.folder / "runs" / "first" / "report.html").is_file()
    assert "ended well: True lost frames: 0" in first_run["import json"]


def test_reading_a_result(reader, first_run):
    printed = reader.run_programs("read-a-result")
    assert "perspective 1: " in printed
    assert re.search(r"\(\d+, \d+\) \[", printed)


def test_a_policy_of_ones_own(reader):
    assert "[4.0, 5.0, 6.0, 7.0]" in reader.run_programs("add-a-policy")


def test_a_reader_of_ones_own(reader, tmp_path, monkeypatch):
    reader.run_programs("add-a-reader")
    file = tmp_path / "ours.h5"
    with h5py.File(file, "w") as ours:
        ours.attrs["lab_format"] = 1
        ours["scan/frames"] = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8)
        ours["scan/positions_um"] = [[1.0, 2.0], [1.5, 2.0], [2.0, 2.5]]
        ours["scan/energy_keV"] = 8.8
    monkeypatch.syspath_prepend(str(reader.folder))
    format_of_ours = importlib.import_module("lab").LabReader
    with closing(ScanFiles(file)) as files:
        assert format_of_ours.recognises(files)
        contents = format_of_ours(files).read(0)
        assert contents.geometry.energy_eV == pytest.approx(8800)
        np.testing.assert_allclose(contents.positions.values[0], [2e-6, 1e-6])
        assert contents.frames.read(1, 3).shape == (2, 8, 8)


def test_your_scan_file(reader, first_run):
    printed = reader.follow("your-scan-file")
    assert "frames             100 of 32 × 32 px" in printed["ptychoflow inspect lab.h5 --config lab-run.toml"]
    assert (reader.folder / "lab.png").is_file()


def test_attach_your_detector(reader, first_run):
    printed = reader.follow("attach-your-detector")
    assert printed["python joined.py"] == "200 frames, 0 unplaced, 0 missing, 0 lost\n"
    assert "frames             200 of 32 × 32 px in 2 perspectives" in printed[RECORDED]
    assert list((reader.folder / "runs" / "attached" / "arrivals").iterdir())
    assert (reader.folder / "attached.png").is_file()


def test_several_hosts(reader, first_run):
    reader.follow("several-hosts")
    summary = json.loads((reader.folder / "runs" / "beamtime-42" / "summary.json").read_text())
    assert summary["ended_well"]
    assert summary["frames"]["lost"] == 0
    assert (reader.folder / "runs" / "beamtime-42" / "report.html").is_file()


def test_the_buffer_in_your_own_loop(reader):
    printed = reader.follow("buffer-in-your-loop")
    without, hidden, with_buffer = map(int, re.findall(r"(\d+)%", printed["python loop.py"]))
    assert without < 30
    assert with_buffer > 80
    assert hidden > 0
    assert "torch.Size([40, 8, 8]) new: 16 rehearsed: 24" in printed["python behind_a_loader.py"]
    ranks = printed["torchrun --nproc-per-node 2 ranks.py"]
    assert "{0: 100, 1: 100}" in ranks or "{1: 100, 0: 100}" in ranks
    assert int(re.search(r"recognised: (\d+)%", ranks)[1]) > 60
    assert "8 items are back" in printed["python checkpoint.py"]


def test_der_plus_plus_on_one_page(reader):
    printed = reader.follow("derpp")["python derpp.py"]
    incremental, er, _, derpp = map(int, re.findall(r"(\d+)%", printed))
    assert incremental < 30
    assert er > 60
    assert derpp > 60


def test_a_port_is_free_again_when_the_parts_have_ended(reader, first_run):
    for port in re.findall(r"_port = (\d+)", (reader.folder / "beamline.toml").read_text()):
        with socket.create_server(("127.0.0.1", int(port))):
            pass
