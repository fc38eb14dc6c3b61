"""Reading in a process of its own: what becomes of it is said in one line, and nothing of it is left."""

import collections
import faulthandler
import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from ptychoflow.acquisition.reading import READING
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow import contained as containment
from ptychoflow.workflow.contained import contained

FILE = Path("scan.h5")


def crash() -> None:
    faulthandler._sigsegv()  # type: ignore[attr-defined]


def compute_for_ever() -> None:
    """In C, without a step of Python in which a signal could be handled."""
    collections.deque(itertools.repeat(0), maxlen=0)


def test_what_is_printed_comes_out_and_a_refusal_is_raised(capfd: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        sys.stdout.write("before\n")
        raise UserError("scan.h5: no scan")

    contained(lambda: sys.stdout.write("all of it\n"), [FILE])
    with pytest.raises(UserError, match=r"^scan\.h5: no scan$"):
        contained(refuse, [FILE])
    assert capfd.readouterr().out == "all of it\nbefore\n"


def test_a_crash_is_one_line_that_names_signal_and_what_was_read() -> None:
    def read() -> None:
        READING.debug("%s: frames %d to %d", "odd\nname.h5", 4, 7)
        crash()

    with pytest.raises(
        UserError, match=r"^odd name\.h5: frames 4 to 7: .* crashed .*SIGSEGV.* copy it again"
    ) as refusal:
        contained(read, [FILE])
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match=r"^scan\.h5 and 1 others: .*SIGABRT"):
        contained(os.abort, [FILE, Path("other.h5")])


def test_the_crashed_library_is_named() -> None:
    # NumPy calls the crash from its own code, as HDF5 is called from that of h5py
    with pytest.raises(UserError, match=r"a library \(numpy\) crashed"):
        contained(lambda: np.apply_along_axis(lambda _row: crash(), 0, np.zeros((2, 2))), [FILE])


def test_computing_without_an_end_is_ended_unless_something_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "COMPUTING_LIMIT_S", 2)

    def read_often() -> None:
        for part in range(4):
            READING.debug("part %d", part)
            begun_s = time.process_time()
            while time.process_time() - begun_s < 0.8:
                pass

    contained(read_often, [FILE])
    with pytest.raises(UserError, match=r"^scan\.h5: .* did not end"):
        contained(compute_for_ever, [FILE])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containment, "MEMORY_BYTES", 2**32)
    contained(lambda: np.zeros(2**29, np.uint8).sum(), [FILE])
    with pytest.raises(UserError, match=r"^scan\.h5: .*4 GiB"):
        contained(lambda: np.zeros(2**33, np.uint8), [FILE])


def test_a_bug_is_reported_once_and_ends_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        contained(lambda: 1 // 0, [FILE])
    assert end.value.code == 1
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1


def test_a_killed_reader_is_said() -> None:
    with pytest.raises(UserError, match="SIGKILL"):
        contained(lambda: os.kill(os.getpid(), signal.SIGKILL), [FILE])


PROGRAM = """
import collections, itertools, os, sys
from ptychoflow.workflow import cli
from ptychoflow.__main__ import main
from ptychoflow.workflow.contained import contained

def hang():
    print(os.getpid(), flush=True)
    collections.deque(itertools.repeat(0), maxlen=0)

cli.run_command_line = lambda arguments: contained(hang, ["scan.h5"])
main()
"""


def test_ctrl_c_ends_it_within_a_library_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "ptychoflow: interrupted\n"
    assert not psutil.pid_exists(child)


def test_what_the_parent_has_dropped_is_not_ended_in_the_copy(tmp_path: Path) -> None:
    """A library's object may wait, when it ends, for threads that only its own process has."""
    ended_by = tmp_path / "ended"

    class OfALibrary:
        def __del__(self) -> None:
            with ended_by.open("a") as file:
                file.write(f"{os.getpid()}\n")

    gc.disable()
    try:
        dropped = OfALibrary()
        dropped.itself = dropped  # type: ignore[attr-defined]
        del dropped
        contained(gc.collect, [FILE])
        assert not ended_by.exists()
    finally:
        gc.enable()
    gc.collect()
    assert ended_by.read_text() == f"{os.getpid()}\n"
